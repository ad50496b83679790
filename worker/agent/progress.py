"""What a turn tells as it goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from shared.attachments import Attachment
from shared.budgets import Allowance, Spend
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import Step, Summary
from shared.usage import Usage
from worker.tools.spec import ToolCall


class TurnNews:
    """What a turn tells as it goes, called on its loop; override what is of interest. None may block."""

    def text(self, step: int, text: str) -> None:
        """The model wrote this much more text in step ``step``."""

    def restarted(self, step: int) -> None:
        """The text told of step ``step`` so far is void: the model begins it again."""

    def model_away(self, model: str, problem: str) -> None:
        """No model can answer now; the turn waits for this one, inside its time."""

    def call_sent(self, usage: Usage) -> None:
        """A model call goes out; so much the step has used if it is cut off before anything of its answer comes."""

    async def more(self, used: Spend, wanted: Spend) -> Allowance | None:  # noqa: ARG002
        """The turn has used so much, and wants so much in all; return what it may use, None where nothing bounds it."""
        return None

    def step_opened(self, opening: StepOpening) -> None:
        """The model asked for tool calls; none of them has begun."""

    async def begin_call(self, call: ToolCall, intent: CallIntent, *, once: bool) -> None:  # noqa: ARG002
        """A tool call is to begin, and does when this returns; with ``once`` it must never be made a second time."""
        self.tool_started(call)

    def end_call(self, call: ToolCall, result: CallResult) -> None:
        """A tool call gave its result."""
        self.tool_ended(call, result.message)

    @contextlib.contextmanager
    def waiting(self, waits_for: str) -> Iterator[None]:  # noqa: ARG002
        """The turn waits for a model's answer (``model``) or a tool (its name) as long as this is open."""
        yield

    async def images(self, messages: Sequence[bytes]) -> dict[str, bytes]:  # noqa: ARG002
        """Return the bytes of the images that these transcript messages refer to, by digest."""
        return {}

    def keep_image(self, image: Attachment, data: bytes) -> None:
        """A tool returned an image, to which its result will refer."""

    def keep_file(self, file: Attachment, data: bytes) -> None:
        """A tool gave a file for the chat, to which its result will refer."""

    def tool_started(self, call: ToolCall) -> None:
        """A tool call begins."""

    def tool_said(self, call: ToolCall, text: str) -> None:
        """A running tool tells how far it is."""

    def tool_ended(self, call: ToolCall, message: bytes) -> None:
        """A tool call gave this transcript message."""

    def step_done(self, step: Step) -> None:
        """A step that was not the last is finished: a later attempt may resume after it."""

    def compacted(self, summary: Summary) -> None:
        """The window was full: from now on a model is shown this instead of its older part, which it was made of."""

    def compaction_failed(self, problem: str) -> None:
        """The window was full and its older part could not be summarized, so it is left out."""
