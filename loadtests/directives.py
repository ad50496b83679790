"""Directives: what a message tells the scripted provider to do, such as ``[[sleep 2]] [[tool roll {"sides": 6}]]``.

A directive may end with ``times=N``: it then holds for the first N calls that carry it. ``[[then]]`` separates the
steps of a turn. See docs/load-testing.md for the list.
"""

from __future__ import annotations

import json
import re

import msgspec

DIRECTIVES = frozenset(
    "sleep tool tools dribble slow ping stall status context reset malformed empty cached say long then".split()
)
_OPEN = re.compile(r"\[\[(" + "|".join(sorted(DIRECTIVES, key=len, reverse=True)) + r")\b[ \t]*")
_OPTION = re.compile(r"\s(times|retry-after)=([\w.:-]+)$")


class WantedCall(msgspec.Struct, frozen=True):
    """A tool call the model is to ask for, ``count`` times; ``arguments`` is JSON text, well-formed or not."""

    name: str
    arguments: str
    count: int = 1


class Directive(msgspec.Struct, frozen=True):
    """One directive: its name, its words as written, its options, and the tool call it asks for."""

    name: str
    words: str = ""
    options: dict[str, str] = {}
    call: WantedCall | None = None

    @property
    def times(self) -> int | None:
        """Return for how many calls it holds, None for all."""
        return int(self.options["times"]) if "times" in self.options else None

    def seconds(self, default: float) -> float:
        """Return the first word as seconds."""
        return float(self.words.split()[0]) if self.words else default


class Segment(msgspec.Struct, frozen=True):
    """One step of a script: its directives, and the text that stands beside them."""

    directives: tuple[Directive, ...]
    text: str


def read_script(text: str) -> tuple[Segment, ...]:
    """Read the steps a message scripts; a message without directives is one step of plain text."""
    segments: list[Segment] = []
    directives: list[Directive] = []
    plain, position = "", 0
    while found := _OPEN.search(text, position):
        plain += text[position : found.start()]
        directive, position = read_directive(text, found)
        if directive.name == "then":
            segments.append(Segment(tuple(directives), squeeze(plain)))
            directives, plain = [], ""
        else:
            directives.append(directive)
    segments.append(Segment(tuple(directives), squeeze(plain + text[position:])))
    return tuple(segments)


def read_directive(text: str, found: re.Match[str]) -> tuple[Directive, int]:
    """Read the directive that opens at a match; return it and where the text goes on."""
    name, start = found.group(1), found.end()
    if name in {"tool", "tools"}:
        start = arguments_end(text, start)
    end = text.find("]]", start)
    end = len(text) if end < 0 else end
    words, options = text[found.end() : end].strip(), {}
    while option := _OPTION.search(" " + words):
        options[option.group(1)] = option.group(2)
        words = words[: max(0, option.start() - 1)].rstrip()
    return Directive(name, words, options, read_call(name, words)), min(len(text), end + 2)


def arguments_end(text: str, start: int) -> int:
    """Find where a tool call's JSON arguments end, so that brackets in them do not close the directive."""
    brace = text.find("{", start)
    if brace < 0 or "]]" in text[start:brace]:
        return start
    try:
        return json.JSONDecoder().raw_decode(text, brace)[1]
    except json.JSONDecodeError:
        return start


def read_call(name: str, words: str) -> WantedCall | None:
    """Read ``NAME [JSON]`` of a tool directive, or ``COUNT NAME [JSON]`` of a tools directive."""
    match name:
        case "tool":
            tool, _, arguments = words.partition(" ")
            return WantedCall(tool, arguments.strip() or "{}")
        case "tools":
            count, _, rest = words.partition(" ")
            tool, _, arguments = rest.partition(" ")
            return WantedCall(tool, arguments.strip() or "{}", int(count))
        case _:
            return None


def squeeze(text: str) -> str:
    """Drop the gaps that directives leave in a text."""
    return re.sub(r"[ \t]{2,}", " ", text).strip()
