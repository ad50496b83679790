"""What a turn tells as it goes, handed to the functions of a library's caller."""

from __future__ import annotations

import logging
from collections.abc import Callable

from worker.agent.progress import TurnNews
from worker.tools.spec import ToolCall


class Callbacks(TurnNews):
    """Tells a caller's functions what a turn does; one that raises is logged and not called again."""

    def __init__(self, on_text: Callable[[str], object] | None, on_tool: Callable[[str, str], object] | None) -> None:
        self._on_text = on_text
        self._on_tool = on_tool

    def text(self, step: int, text: str) -> None:  # noqa: ARG002 - the door's signature
        if self._on_text is not None and not _survives(self._on_text, text):
            self._on_text = None

    def tool_started(self, call: ToolCall) -> None:
        self._tell(call.name, "started")

    def tool_said(self, call: ToolCall, text: str) -> None:
        self._tell(call.name, text)

    def tool_ended(self, call: ToolCall, message: bytes) -> None:  # noqa: ARG002 - the door's signature
        self._tell(call.name, "ended")

    def _tell(self, name: str, text: str) -> None:
        if self._on_tool is not None and not _survives(self._on_tool, name, text):
            self._on_tool = None


def _survives(callback: Callable[..., object], *words: str) -> bool:
    try:
        callback(*words)
    except BaseException:  # a caller's mistake is the caller's to read, and ends no turn; sys.exit would end the loop
        logging.getLogger("gatehouse").exception("a callback of AIAgent raised and is not called again")
        return False
    return True
