"""Where a command prints: lines for people, or one JSON value for programs; progress of long work on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Self

import msgspec
from tqdm import tqdm

from shared.printable import printable, printable_json


class Terminal:
    """Prints the result of a command to stdout, and what is beside it to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def show(self, value: object, lines: Iterable[str], none: str = "") -> None:
        """Print the value as JSON where ``--json`` asks for it, else the lines; ``none`` is said where none is."""
        if self._as_json:
            self.write_json(msgspec.json.format(msgspec.json.encode(value), indent=2))
            return
        text = "".join(f"{printable(line)}\n" for line in lines)
        self._write(text)
        if none and not text:
            self.note(none)

    def write_json(self, text: bytes) -> None:
        """Write JSON text to stdout; what would steer a terminal is an escape in it, which is the same value."""
        self._write(printable_json(text.decode()) + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.buffer.flush()

    def note(self, line: str) -> None:
        """Say something beside the result, for the person who reads along."""
        sys.stderr.write(f"gatehouse: {printable(line)}\n")
        sys.stderr.flush()

    def progress(self, what: str, total: int | None, unit: str) -> tqdm[None]:
        """Return a bar on stderr to ``update(n)`` and ``close()``; where stderr is no terminal nothing is drawn."""
        scaled = unit == "B"
        return tqdm(desc=what, total=total, unit=unit, unit_scale=scaled, disable=None, leave=False, file=sys.stderr)


class PageProgress:
    """A bar of pages, moved by ``(done, total)``: what copies and reads a database calls."""

    def __init__(self, terminal: Terminal, what: str) -> None:
        self._bar = terminal.progress(what, None, "page")

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    """Return lines of columns; without rows there is none, not even the head."""
    cells = [tuple(str(cell) for cell in row) for row in rows]
    if not cells:
        return []
    widths = [max(len(row[place]) for row in (head, *cells)) for place in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *cells)
    ]
