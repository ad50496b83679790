"""Answers read as the documentation of both wires has them and not otherwise: what tolerance is measured against."""

from __future__ import annotations

import msgspec


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    text: str = ""


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


class _Event(msgspec.Struct, frozen=True):
    type: str
    delta: _Delta = _Delta()


class StrictAnswer:
    """Collects the text of an answer."""

    def __init__(self) -> None:
        self.finished = False
        self.pieces: list[str] = []

    def take_whole(self, body: bytes) -> None:
        """Read one body. Raises ValueError: none is expected."""
        raise ValueError(f"{len(body)} bytes that are no stream")


class StrictOpenAIAnswer(StrictAnswer):
    """One chat completion."""

    _decoder = msgspec.json.Decoder(_Chunk)

    def take(self, event: bytes) -> bool:
        """Read one chunk. Raises ValueError for one of another form."""
        if event == b"[DONE]":
            self.finished = True
            return False
        for choice in self._decoder.decode(event).choices:
            self.pieces.append(choice.delta.content or "")
        return True


class StrictAnthropicAnswer(StrictAnswer):
    """One message."""

    _decoder = msgspec.json.Decoder(_Event)

    def take(self, event: bytes) -> bool:
        """Read one event. Raises ValueError for one of another form."""
        read = self._decoder.decode(event)
        self.pieces.append(read.delta.text)
        self.finished = read.type == "message_stop"
        return True
