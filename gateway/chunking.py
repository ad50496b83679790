"""Cutting a long answer into messages: in the platform's unit, at the best place, never through what belongs together.

The answer is cut as styled text and written chunk by chunk, so marks, quotes and code blocks are whole in each. Nothing
that can be seen is lost but the blanks around a cut; inside code not even those, but for the newline a cut falls on.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator

import regex

from gateway.formatting import PLAIN, Dialect, write
from gateway.styled_text import Run, Style, read_markdown, visible

#: what no cut goes through, unless it is longer than this
MOST_WHOLE = 500
BARE_URL = re.compile(r"https?://\S+")

GRAPHEME = regex.compile(r"\X")

#: a line that begins a block, which it did not before it was cut off
BLOCK_START = re.compile(r"#{1,6}(?:\s|$)|>|[-+*](?:\s|$)|`{3}|~{3}|\||[-_*](?:\s*[-_*]){2,}\s*$")
NUMBER_START = re.compile(r"([0-9]{1,9})([.)](?:\s|$))")

Measure = Callable[[str], int]


def code_points(text: str) -> int:
    """Count code points."""
    return len(text)


def utf16_units(text: str) -> int:
    """Count UTF-16 units."""
    return len(text) + sum(char > "\uffff" for char in text)


def utf8_bytes(text: str) -> int:
    """Count bytes of UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def cut(
    markdown: str, limit: int, dialect: Dialect = PLAIN, measure: Measure = utf16_units, *, seen_only: bool = False
) -> list[str]:
    """Write an answer as texts of a dialect that each take at most ``limit`` units, none of them blank.

    With ``seen_only`` the platform counts what is seen, not its markup. ``limit`` is 200 at the least.
    """
    return list(_Cutter(read_markdown(markdown), limit, dialect, measure, seen_only=seen_only).chunks())


class _Cutter:
    """One answer on its way into chunks; positions are those of its visible text."""

    def __init__(self, runs: list[Run], limit: int, dialect: Dialect, measure: Measure, *, seen_only: bool) -> None:
        self._runs = runs
        self._limit = limit
        self._dialect = dialect
        self._measure = measure
        self._seen_only = seen_only
        self._text = visible(runs)
        self._starts = [0]
        for run in runs:
            self._starts.append(self._starts[-1] + len(run.text))
        self._whole = sorted(self._find_whole())

    def chunks(self) -> Iterator[str]:
        at, end = 0, len(self._text.rstrip())
        while at < end:
            cut_at = self._next_cut(at, end)
            written = write(self._part(at, cut_at), self._dialect)
            if written.strip():
                yield written
            at = self._next_start(cut_at)

    def _next_cut(self, at: int, end: int) -> int:
        """Return the end of the chunk that begins at a position."""
        furthest = min(end, at + self._limit)
        while True:
            size = self._size(at, furthest)
            if size <= self._limit:
                break
            furthest = max(at + 1, at + min(furthest - at - 1, (furthest - at) * self._limit // size))
        cut_at = end if furthest == end else self._best(at, furthest)
        while cut_at > at + 1 and self._size(at, cut_at) > self._limit:
            cut_at = self._best(at, cut_at - 1)
        return cut_at

    def _size(self, at: int, cut_at: int) -> int:
        written = write(self._part(at, cut_at), self._dialect)
        if not self._seen_only:
            return self._measure(written)
        # whatever is counted, a request has its own limit: about eight bytes for each unit
        return max(self._measure(self._text[at:cut_at].strip()), utf8_bytes(written) // 8)

    def _part(self, at: int, cut_at: int) -> list[Run]:
        """Return the runs between two positions, without the blanks around them."""
        first = bisect.bisect_left(self._starts, at)
        first -= self._starts[min(first, len(self._runs))] != at
        runs = []
        for index in range(first, len(self._runs)):
            start, run = self._starts[index], self._runs[index]
            if start >= cut_at:
                break
            text = run.text[max(at - start, 0) : cut_at - start]
            runs.append(run if text == run.text else run._replace(text=text, source=None))
        while runs and not runs[-1].has(Style.BLOCK) and not runs[-1].text.strip():
            runs.pop()
        if runs and not runs[-1].has(Style.BLOCK, Style.TABLE, Style.CODE) and runs[-1].source is None:
            runs[-1] = runs[-1]._replace(text=runs[-1].text.rstrip())
        return as_beginning(runs) if at and self._dialect.markdown else runs

    def _best(self, at: int, end: int) -> int:
        """Return the best cut after ``at`` and not after ``end``: paragraph, line, word, and only then anywhere."""
        half = at + (end - at) // 2
        for mark, least, in_code in (("\n\n", half, False), ("\n", half, True), (" ", half, False), ("\n", at, True)):
            place = end + 1
            while (place := self._text.rfind(mark, least + 1, place + len(mark) - 1)) > at:
                if self._may_cut(at, place, in_code=in_code):
                    return place
        return self._anywhere(at, end)

    def _may_cut(self, at: int, place: int, *, in_code: bool) -> bool:
        if not self._text[at:place].strip() or self._inside_whole(place) > at:
            return False
        if not in_code and self._in_code(place):
            return False
        blank = GRAPHEME.match(self._text, place)
        return blank is not None and blank.end() == place + 1

    def _anywhere(self, at: int, end: int) -> int:
        """Return the last place up to ``end`` where two graphemes meet, outside of what is whole where that can be."""
        start = self._inside_whole(end)
        if start > at:
            return start
        last = at
        for found in GRAPHEME.finditer(self._text, at, min(len(self._text), end + 64)):
            if found.end() > end:
                break
            last = found.end()
        return last if last > at else end

    def _find_whole(self) -> Iterator[tuple[int, int]]:
        for start, run in zip(self._starts, self._runs, strict=False):
            if run.has(Style.LINK, Style.CODE) and 1 < len(run.text) <= MOST_WHOLE:
                yield start, start + len(run.text)
        for found in BARE_URL.finditer(self._text):
            if len(found[0]) <= MOST_WHOLE:
                yield found.span()

    def _inside_whole(self, place: int) -> int:
        """Return where what is whole around a place begins, -1 where nothing is."""
        index = bisect.bisect_left(self._whole, (place, -1)) - 1
        start, end = self._whole[index] if index >= 0 else (-1, -1)
        return start if start < place < end else -1

    def _in_code(self, place: int) -> bool:
        return self._runs[bisect.bisect_right(self._starts, place) - 1].has(Style.BLOCK, Style.TABLE)

    def _next_start(self, cut_at: int) -> int:
        """Return where the next chunk begins: past the blanks of a cut."""
        if cut_at < len(self._text) and self._in_code(cut_at) and self._in_code(cut_at - 1):
            return cut_at + (self._text[cut_at] == "\n")
        while cut_at < len(self._text) and self._text[cut_at] in " \n" and not self._in_code(cut_at):
            cut_at += 1
        return cut_at


def as_beginning(runs: list[Run]) -> list[Run]:
    """Return the runs of a chunk so that its first line begins no block which it did not begin before."""
    if not runs or runs[0].source is not None or runs[0].marks:
        return runs
    text = runs[0].text
    number = NUMBER_START.match(text)
    source = f"{number[1]}\\{text[number.end(1) :]}" if number else f"\\{text}" if BLOCK_START.match(text) else None
    if source is None:
        return runs
    line, newline, rest = source.partition("\n")
    shown = text.partition("\n")[0]
    return [Run(shown, (), line), *([Run(newline + rest)] if newline else []), *runs[1:]]
