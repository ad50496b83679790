"""The ``@tool`` decorator, which marks a function and registers nothing, and what becomes of it: a Tool."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

import msgspec

from worker.tools.context import ToolContext
from worker.tools.spec import ToolSpec

OUTPUT_LIMIT_BYTES = 64 * 1024
APPROVE_WITHIN_S = 3600.0
_MARK = "__gatehouse_tool__"

F = TypeVar("F", bound=Callable[..., Any])


class ToolOptions(msgspec.Struct, frozen=True):
    """What a declaration says beside the function's own name, types and docstring."""

    #: what a model calls it
    name: str
    #: whether a call that may have happened may be made again
    retry_safe: bool = True
    #: seconds that one call may take; None leaves the turn's own deadline
    timeout_s: float | None = None
    #: a longer result is cut, and the model is told
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES
    #: whether the sender has to allow each call before it is made
    approve: bool = False
    #: seconds in which that has to be; no answer is a refusal
    approve_within_s: float = APPROVE_WITHIN_S


#: runs one call: the model's JSON arguments and the context, to any value
Run = Callable[[str, ToolContext], Coroutine[Any, Any, object]]


class Tool(msgspec.Struct, frozen=True):
    """One tool of a toolbox."""

    #: what a model is told of it
    spec: ToolSpec
    #: what its declaration says
    options: ToolOptions
    #: runs one call
    run: Run


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str = "",
    retry_safe: bool = True,
    timeout_s: float | None = None,
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
    approve: bool = False,
    approve_within_s: float = APPROVE_WITHIN_S,
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str = "",
    retry_safe: bool = True,
    timeout_s: float | None = None,
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
    approve: bool = False,
    approve_within_s: float = APPROVE_WITHIN_S,
) -> F | Callable[[F], F]:
    """Declare a function as a tool, bare or with the options of ToolOptions; the function itself stays as it is.

    Raises ValueError for a time or a size that is not above zero.
    """
    if (timeout_s is not None and not timeout_s > 0) or output_limit_bytes <= 0 or not approve_within_s > 0:
        raise ValueError("timeout_s, output_limit_bytes and approve_within_s of a tool are above zero")

    def declare(declared: F) -> F:
        chosen = name or declared.__name__
        setattr(
            declared, _MARK, ToolOptions(chosen, retry_safe, timeout_s, output_limit_bytes, approve, approve_within_s)
        )
        return declared

    return declare if function is None else declare(function)


def declared_options(candidate: object) -> ToolOptions | None:
    """Return the options of a declared function, None for anything else."""
    options = getattr(candidate, _MARK, None) if callable(candidate) else None
    return options if isinstance(options, ToolOptions) else None
