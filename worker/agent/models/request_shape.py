"""What one server takes in a request: learned from its refusals, once each, and remembered while the worker lives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shared.loose_json import decode_loose
from worker.agent.models.failures import RequestRefused

#: fields whose names differ among servers; one that is refused is sent under the other name, then not at all
RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
#: fields without which there is no call
NEEDED = frozenset(("model", "messages"))
#: what stands in a transcript or beside it and may be refused as well
SYSTEM_ROLE, CACHE_MARKS, STATE = "system role", "cache_control", "provider state"

_REFUSES = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra (inputs?|fields?|keys?)|extra_forbidden|"
    r"not (permitted|allowed|accepted|available|implemented|valid|recognized|enabled)|no longer|deprecated|invalid|"
    r"cannot be (used|specified|set)|instead|remove|only the default|must (not )?be|may not|too (large|high|big)|"
    r"exceeds?|at most|maximum|forbidden|disabled",
    re.IGNORECASE,
)
_NO_SYSTEM = re.compile(
    r"system[` '\"]*(role|message|prompt|instruction)s?[^.]{0,40}(not|unsupported)|only user and assistant roles",
    re.IGNORECASE,
)
#: "at most 2048", "maximum allowed number of output tokens is 4096", "8192 > 4096, which is the maximum", "<= 4096"
_LIMITS = (
    re.compile(r"\d+\s*>\s*(\d+),? which is the max", re.IGNORECASE),
    re.compile(
        r"(?:at most|less than or equal to|no more than|up to|<=|maximum of|below)\D{0,30}?(\d{2,})", re.IGNORECASE
    ),
    re.compile(r"\[\s*\d+\s*,\s*(\d{2,})\s*\]", re.IGNORECASE),
    re.compile(r"max(?:imum)?[^.\d]{0,60}?(\d{2,})", re.IGNORECASE),
)
_LEAST_LIMIT = 16


class RequestShape:
    """What a server does not take, and how many tokens it lets an answer have."""

    def __init__(self) -> None:
        self._without: set[str] = set()
        self._names: dict[str, str] = {}
        self._limit: int | None = None

    def takes(self, what: str) -> bool:
        """Tell whether a field, or one of the things named above, may be sent."""
        return what not in self._without

    def apply(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a request as this server takes them."""
        if not (self._without or self._names or self._limit):
            return settings
        found: dict[str, Any] = {}
        for field, value in settings.items():
            name = self._names.get(field, field)
            if name not in self._without:
                found[name] = min(value, self._limit) if name in RENAMED and self._limit is not None else value
        return found

    def learn(self, refused: RequestRefused, sent: Iterable[str], limit: int, opaque: Iterable[str] = ()) -> str:
        """Learn from a refusal what not to send again, and return it in words; empty where it tells of nothing sent.

        ``sent`` are the names of the fields that went out, ``limit`` the tokens that were asked for, ``opaque`` the
        names inside the provider state that went back.
        """
        words = refused.words
        if CACHE_MARKS in words and self.takes(CACHE_MARKS):
            return self._leave_out(CACHE_MARKS)
        if _NO_SYSTEM.search(words) and self.takes(SYSTEM_ROLE):
            return self._leave_out(SYSTEM_ROLE)
        if not _REFUSES.search(words):
            return ""
        if self.takes(STATE) and any(_is_named(name, words) for name in opaque):
            return self._leave_out(STATE)
        name = _named_field(words, [name for name in sent if name not in NEEDED])
        if not name:
            return ""
        if name in RENAMED:
            return self._learn_limit(name, words, limit)
        return self._leave_out(name)

    def _learn_limit(self, name: str, words: str, limit: int) -> str:
        other = RENAMED[name]
        # "use 'max_completion_tokens' instead" names both; a number that is smaller than what was asked is a limit
        if not re.search(r"instead|unsupported_parameter|extra_forbidden|unrecognized|unknown", words, re.IGNORECASE):
            found = (int(match[1]) for pattern in _LIMITS for match in pattern.finditer(words))
            fits = next((number for number in found if _LEAST_LIMIT <= number < limit), None)
            if fits is not None:
                self._limit = fits
                return f"at most {fits} {name}"
        if name in self._names.values():  # it was renamed to this one already
            return self._leave_out(name)
        self._names[name] = other
        return f"{other} instead of {name}"

    def _leave_out(self, what: str) -> str:
        self._without.add(what)
        return f"no {what}"


def _named_field(words: str, sent: list[str]) -> str:
    """Return the field that a refusal names: as its parameter, in a path, or in its text; empty where it names none."""
    told = _told_parameters(words)
    for parameter in told:
        first = re.split(r"[.\[]", parameter)[0]
        if first in sent:
            return first
    named = [name for name in sent if _is_named(name, words)]
    return max(named, key=len, default="")


def _is_named(name: str, words: str) -> bool:
    spoken = name.replace("_", "[_ ]")
    if name in {"stream", "tools", "stop"}:  # words that stand in any text
        spoken = (
            rf"[`'\"\\]{spoken}[`'\"\\]|{spoken}(?=:| (is|are|parameter|param|field|use)\b)|support(s|ed)? {spoken}\b"
        )
    return re.search(rf"(?<![\w]){spoken}(?![\w])", words, re.IGNORECASE) is not None


def _told_parameters(words: str) -> list[str]:
    """Return what an error body calls its ``param`` (OpenAI) or the end of its ``loc`` (pydantic)."""
    try:
        body = decode_loose(words.encode("utf-8", "replace"))
    except ValueError:
        return []
    found: list[str] = []
    waiting = [body]
    while waiting:
        match waiting.pop():
            case {"param": str(name)}:
                found.append(name)
            case {"loc": [*path]}:
                found += [str(part) for part in path if part != "body"]
            case dict() as one:
                waiting += one.values()
            case [*some]:
                waiting += some
    return found


#: how a server says what would fit: its context, and what of it was asked
_ROOM = (
    re.compile(
        r"maximum context length is (\d+) tokens.{0,200}?(\d+) (?:in the messages|input tokens)",
        re.DOTALL,
    ),
    re.compile(r"maximum context length is (\d+) tokens and your request has (\d+) input tokens", re.DOTALL),
    re.compile(r"must be <= (\d+)\. Given: (\d+) `inputs` tokens", re.DOTALL),
    re.compile(r"context length of (\d+) tokens.{0,120}?(\d+) tokens from the input", re.DOTALL),
)


def room_left(words: str) -> int | None:
    """Return how many tokens an answer may have, where a server says that the question alone would fit; else None."""
    for pattern in _ROOM:
        if found := pattern.search(words):
            return int(found[1]) - int(found[2])
    return None
