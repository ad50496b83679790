"""The notebook of a run: one line for whatever was about to happen or had happened, in one order over all processes.

A line is one write to a file opened for appending, so it outlives the SIGKILL of the process that wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from loadtests.crash.fault import Fault
from loadtests.crash.plan import Boundary, Kill, Side

NOTES = "notes.jsonl"
MAKES_NOTES = "noted "


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: ``life`` is the process id of the gateway it happened under, 0 inside a tool.

    ``message`` is a message id, ``keys`` are idempotency keys of a reply or of tool calls, ``labels`` the calls that
    are finished with it; ``ended`` says that a settle ended the message; ``killed`` is the kill that follows this line.
    """

    life: int
    boundary: Boundary
    side: Side
    message: str = ""
    keys: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    ended: bool = False
    killed: Kill | Fault | None = None


class Notebook:
    """Owns one file of notes; any number of processes write to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, note: Note) -> None:
        """Append one note."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, msgspec.json.encode(note) + b"\n")
        finally:
            os.close(file)

    def read(self, offset: int = 0) -> list[Note]:
        """Return the notes from a byte of the file on, oldest first."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(offset)
            return [msgspec.json.decode(line, type=Note) for line in file if line.endswith(b"\n")]

    @property
    def size_bytes(self) -> int:
        """Where the next note will be."""
        return self.path.stat().st_size if self.path.exists() else 0


class ToolMessage(msgspec.Struct, frozen=True):
    """What counts of a transcript message here."""

    role: str
    content: str | None = None


def finished_labels(messages: Iterable[bytes]) -> tuple[str, ...]:
    """Return the labels of the tool calls whose results stand in these transcript messages."""
    read = (msgspec.json.decode(message, type=ToolMessage) for message in messages)
    return tuple(
        message.content.removeprefix(MAKES_NOTES)
        for message in read
        if message.role == "tool" and message.content and message.content.startswith(MAKES_NOTES)
    )
