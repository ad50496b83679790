"""One agent turn: steps until a reply.

    run ── step: query (one model call) ── no tool calls ──> Ended(REPLIED)
            ▲                 │ tool calls
            └── step done ◄── execute (all of them at once)

Everything it touches is given to it: the model, the tools, the todo store, the conversation so far. It knows no
channel, no store and no settings, so the worker's child and the library's AIAgent run the same code.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.messages import Ended, Parked, Step
from worker.agent.models.port import Model, ToolCall
from worker.agent.todo import TodoStore
from worker.tools.toolbox import Toolbox

STEP_LIMIT = 100
WINDOW_TOKENS = 100_000


class TurnRequest(msgspec.Struct, frozen=True):
    """What one turn is about.

    ``history`` is the conversation before it (transcript messages, oldest first); ``texts`` are the sender's new
    words, one user message each; ``steps`` are finished ones of an earlier attempt, not to be run again (their
    messages include the user's); ``deadline_s`` bounds the turn, ``api_timeout_s`` one model call;
    ``window_tokens`` is how much of the transcript a model is shown.
    """

    session: str
    message_id: str
    texts: tuple[str, ...]
    history: Sequence[bytes] = ()
    steps: tuple[Step, ...] = ()
    system: str = ""
    deadline_s: float = 900.0
    api_timeout_s: float = 300.0
    window_tokens: int = WINDOW_TOKENS
    step_limit: int = STEP_LIMIT


class Progress:
    """What a turn tells as it goes, called on its loop; override what is of interest. None may block."""

    def text(self, step: int, text: str) -> None:
        """The model wrote this much more text in step ``step``."""

    def tool_started(self, step: int, call: ToolCall) -> None:
        """A tool call begins."""

    def tool_said(self, call: ToolCall, text: str) -> None:
        """A running tool tells how far it is."""

    def tool_ended(self, step: int, call: ToolCall, message: bytes) -> None:
        """A tool call gave this transcript message."""

    def step_done(self, step: Step) -> None:
        """A step that was not the last is finished: a later attempt may resume after it."""


class Turn:
    """One run of the agent over one request; used once, on one loop.

    ``todo`` is changed in place. After the run ``messages`` holds the whole turn, resumed steps and the user's
    message included, ready to follow ``request.history``; ``usage`` is summed over the steps run here.
    """

    def __init__(
        self, request: TurnRequest, model: Model, toolbox: Toolbox, todo: TodoStore, progress: Progress | None = None
    ) -> None:
        raise NotImplementedError

    async def run(self) -> Ended | Parked:
        """Run to the end and return how it ended.

        The Ended outcome's messages, todo and usage are those of the last step alone: every earlier step went to
        ``progress.step_done``. Model and tool failures, the deadline and interrupts are outcomes, never raised;
        cancelling the task that runs it raises CancelledError.
        """
        raise NotImplementedError

    def interrupt(self) -> None:
        """End the turn now, whatever runs: its transcript stays valid. Call it on the turn's loop; may come early."""
        raise NotImplementedError

    def park(self) -> None:
        """End the turn as Parked at its next step boundary, unless it comes to its end first."""
        raise NotImplementedError
