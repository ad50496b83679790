"""How the pool tells of an exception that nobody expected: a fault of this program, for which one message pays."""

from __future__ import annotations

import traceback

from shared.events import Event, Events, Field

#: the most of a traceback that is told, in characters from its end
STACK_LIMIT_CHARS = 4000


def tell_fault(events: Events, doing: str, error: BaseException, **fields: Field) -> None:
    """Say what was being done when the error came, and where it came from."""
    stack = "".join(traceback.format_exception(error))[-STACK_LIMIT_CHARS:]
    events.emit(Event.POOL_FAULT, doing=doing, error=fault_text(error), stack=stack, **fields)


def fault_text(error: BaseException) -> str:
    """Return the error in one line."""
    return f"{type(error).__name__}: {error}"
