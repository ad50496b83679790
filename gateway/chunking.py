"""Cutting a long text into messages: by UTF-16 units, at the best place, and never through what belongs together.

UTF-16 units are never fewer than code points, so a limit that holds in them holds in both. Code fences are closed at
a cut and opened again after it. Nothing that can be seen is lost. Time is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

FENCE = re.compile(r"^ {0,3}(?P<run>`{3,12}+|~{3,12}+)(?P<rest>[^`\n]*)$", re.MULTILINE)

#: how much of a fence's language is repeated when it is opened again
MOST_LANGUAGE = 40

#: a link or a run of code, which no cut goes through; bounded, so that looking for one costs little
WHOLE = re.compile(r"\[[^\[\]\n]{1,200}+\]\([^\s()]{1,500}+\)|`[^`\n]{1,200}+`|https?://\S{1,500}+")
WHOLE_REACH = 720

ZWJ = "\N{ZERO WIDTH JOINER}"
MODIFIERS = frozenset({"Mn", "Me", "Mc"})
LONGEST_CLUSTER = 64


class Fence(NamedTuple):
    """A block of code: where its opening line begins and ends, what closes it, and where the closing line is."""

    start: int
    opened: int
    opener: str
    run: str
    closing: int
    end: int


def split(text: str, limit: int) -> list[str]:
    """Cut a text into chunks of at most ``limit`` UTF-16 units (200 at least), none of them blank.

    Chunks hold everything but the blanks around a cut; a fence that goes on adds its marks to both sides.
    """
    text = text.strip("\n").rstrip()
    fences = list(find_fences(text))
    reserve = max((len(fence.run) + 1 for fence in fences), default=0)
    chunks: list[str] = []
    at = 0
    while at < len(text):
        inside = fence_at(fences, at)
        head = f"{inside.opener}\n" if inside else ""
        if reach(text, at, limit - units(head)) == len(text):
            cut, tail = len(text), ""
        else:
            cut = cut_between(text, fences, at, reach(text, at, limit - units(head) - reserve))
            broken = fence_at(fences, cut)
            tail = f"\n{broken.run}" if broken else ""
        body = text[at:cut].rstrip()
        if body:
            chunks.append(head + body + tail)
        at = next_start(text, fences, cut)
    return chunks


def find_fences(text: str) -> Iterator[Fence]:
    """Find the blocks of code; one that is not closed reaches to the end."""
    opening: re.Match[str] | None = None
    for line in FENCE.finditer(text):
        if opening is None:
            opening = line
        elif closes(line, opening["run"]):
            yield fence_of(opening, line.start(), line.end())
            opening = None
    if opening:
        yield fence_of(opening, len(text), len(text))


def closes(line: re.Match[str], run: str) -> bool:
    """Tell whether a fence line ends a block: the same mark, at least as often, and nothing after it."""
    return line["run"].startswith(run) and not line["rest"].strip()


def fence_of(opening: re.Match[str], closing: int, end: int) -> Fence:
    """Return the block that a line opens."""
    opener = opening["run"] + opening["rest"].strip()[:MOST_LANGUAGE]
    return Fence(opening.start(), opening.end(), opener, opening["run"], closing, end)


def fence_at(fences: list[Fence], at: int) -> Fence | None:
    """Return the block whose code a position is in; the marks are not part of it."""
    return next((fence for fence in fences if fence.opened < at < fence.closing), None)


def units(text: str) -> int:
    """Count UTF-16 units."""
    return len(text) + sum(char > "\uffff" for char in text)


def reach(text: str, at: int, room: int) -> int:
    """Return the position up to which the text from ``at`` on takes at most ``room`` units."""
    part = text[at : at + room].encode("utf-16-le", "surrogatepass")[: 2 * room]
    return at + len(part.decode("utf-16-le", "ignore"))


def cut_between(text: str, fences: list[Fence], at: int, end: int) -> int:
    """Return the best cut after ``at`` and not after ``end``: paragraph, line, word, and only then anywhere."""
    half = at + (end - at) // 2
    for mark, least in (("\n\n", half), ("\n", half), (" ", half), ("\n", at), (" ", at)):
        found = text.rfind(mark, least + 1, end + 1)
        if found > at and text[at:found].strip():
            return whole(text, fences, at, found)
    return whole(text, fences, at, end)


def whole(text: str, fences: list[Fence], at: int, cut: int) -> int:
    """Move a cut back so that it goes through no fence line, link or grapheme, unless nothing would be left."""
    for fence in fences:
        if at < fence.start < cut and not text[fence.opened : cut].strip():
            return fence.start
        if fence.closing < cut < fence.end and fence.closing > at:
            return fence.closing
    for found in WHOLE.finditer(text, max(at, cut - WHOLE_REACH), min(len(text), cut + WHOLE_REACH)):
        if at < found.start() < cut < found.end():
            return found.start()
    for place in range(cut, max(at, cut - LONGEST_CLUSTER), -1):
        if parts_at(text, place):
            return place
    return cut


def parts_at(text: str, place: int) -> bool:
    """Tell whether two graphemes meet at a position; a near enough rule for emoji, flags and accents."""
    if not 0 < place < len(text):
        return True
    before, after = text[place - 1], text[place]
    if ZWJ in {before, after} or unicodedata.category(after) in MODIFIERS:
        return False
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return False
    return not (is_flag_half(before) and is_flag_half(after) and flag_halves_before(text, place) % 2)


def is_flag_half(char: str) -> bool:
    """Tell whether this is a regional indicator; two make a flag."""
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def flag_halves_before(text: str, place: int) -> int:
    """Count the regional indicators right before a position."""
    count = 0
    while count < place and is_flag_half(text[place - 1 - count]):
        count += 1
    return count


def next_start(text: str, fences: list[Fence], cut: int) -> int:
    """Return where the next chunk begins: past the blanks of a cut, and past the end of a block with nothing left."""
    inside = fence_at(fences, cut)
    if inside and not text[cut : inside.closing].strip():
        return next_start(text, fences, inside.end) if inside.end > cut else cut
    if inside:
        return cut + text.startswith("\n", cut)
    while cut < len(text) and text[cut] in " \n":
        cut += 1
    return cut
