"""What the scripted provider was asked and what it is to answer, free of any wire form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from loadtests.directives import Directive, Segment, WantedCall, read_script

PIECE_CHARACTERS = 16
FILLER = "All work and no play makes for a long answer. "


class Asked(msgspec.Struct, frozen=True):
    """One model call: the last user message, how many assistant messages follow it, and the tool results among them.

    ``results`` are (tool name, result text); ``input_tokens`` is a rough count.
    """

    model: str
    stream: bool
    text: str
    step: int
    results: tuple[tuple[str, str], ...]
    input_tokens: int


class Answer(msgspec.Struct, frozen=True):
    """What the model says: text, tool calls, or both."""

    id: str
    model: str
    text: str
    calls: tuple[WantedCall, ...]
    input_tokens: int
    cached_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        return 1 + len(self.text) // 4 + 8 * len(self.calls)

    def pieces(self, characters: int = PIECE_CHARACTERS) -> Iterator[str]:
        """Cut the text into what one streamed event carries."""
        for start in range(0, len(self.text), characters):
            yield self.text[start : start + characters]


class Event(msgspec.Struct, frozen=True):
    """One streamed event's bytes; ``text`` where it carries text of the answer, so that it can be slowed or cut."""

    data: bytes
    text: bool = False


def current_segment(asked: Asked) -> Segment:
    """Return the step of the script this call is in; past the last one, a step without directives."""
    segments = read_script(asked.text)
    return segments[asked.step] if asked.step < len(segments) else Segment((), segments[0].text)


def compose(number: int, asked: Asked, segment: Segment, directives: tuple[Directive, ...]) -> Answer:
    """Decide the answer of one call, faults aside; ``number`` makes ids unique."""
    calls = itertools.chain.from_iterable(
        itertools.repeat(WantedCall(d.call.name, d.call.arguments), d.call.count)
        for d in directives
        if d.call is not None
    )
    found = tuple(calls)
    cached = 0
    text = "" if found else default_text(asked, segment)
    for directive in directives:
        match directive.name:
            case "say":
                text = directive.words
            case "long":
                length = int(directive.words or 1000)
                text = (FILLER * (length // len(FILLER) + 1))[:length]
            case "empty":
                text, found = "", ()
            case "cached":
                cached = min(int(directive.words), asked.input_tokens)
            case _:
                pass
    return Answer(f"{number:08d}", asked.model, text, found, asked.input_tokens, cached)


def default_text(asked: Asked, segment: Segment) -> str:
    """Name the tool results of the turn, or echo the words of the message."""
    if asked.results:
        return "; ".join(f"result of {name}: {result}" for name, result in asked.results)
    return f"echo: {segment.text}"
