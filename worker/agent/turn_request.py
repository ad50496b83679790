"""What a turn is about."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.approvals import Approval
from shared.attachments import Attachment
from shared.budgets import Allowance
from shared.call_options import CallOptions
from shared.messages import JoiningWords, OpenStep, Step, Summary
from shared.texts import ENGLISH, Texts
from worker.agent.attachments import with_attachments
from worker.agent.context import transcript
from worker.agent.sanitize import sanitize_text

STEP_LIMIT = 100
WINDOW_TOKENS = 100_000


class TurnRequest(msgspec.Struct, frozen=True):
    """What one turn is about.

    ``history`` is the conversation before it (transcript messages, oldest first), from position ``first`` on;
    ``summary`` stands for what is before it, or for some of it as well; ``texts`` are the sender's new words, one user
    message each; ``steps`` are finished ones of an earlier attempt, not to be run again (their messages include the
    user's), ``open_step`` is the one it left open; then ``words`` join; ``deadline_s`` bounds the turn and all tries of
    its model calls; past ``window_tokens`` the older part of what a model is shown is summarized; ``repaired`` says
    that every tool call of the history is known to have its result; ``allowance`` is what may be used of the budgets,
    None where nothing bounds it.
    """

    session: str
    message_id: str
    texts: tuple[str, ...]
    history: Sequence[bytes] = ()
    first: int = 0
    summary: Summary | None = None
    steps: tuple[Step, ...] = ()
    open_step: OpenStep | None = None
    words: tuple[JoiningWords, ...] = ()
    #: what was decided about the calls of the open step, None where nobody can be asked
    approvals: tuple[Approval, ...] | None = None
    #: the images of the message
    attachments: tuple[Attachment, ...] = ()
    system: str = ""
    deadline_s: float = 900.0
    window_tokens: int = WINDOW_TOKENS
    step_limit: int = STEP_LIMIT
    repaired: bool = False
    allowance: Allowance | None = None
    #: what a client of the API asks for, None for every other sender
    options: CallOptions | None = None
    #: what the product itself says
    product_texts: Texts = ENGLISH


def opening_of(
    texts: Sequence[str], options: CallOptions | None, attachments: Sequence[Attachment] = ()
) -> tuple[bytes, ...]:
    """Return the transcript messages that open a turn: the sender's words, or what a client gave in their place.

    The last one carries the images.
    """
    if options is not None and options.opening:
        messages = options.opening
    else:
        messages = tuple(transcript.user(sanitize_text(text)) for text in texts)
    return (*messages[:-1], with_attachments(messages[-1], attachments)) if messages else ()
