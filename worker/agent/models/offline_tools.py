"""Which tool somebody wants called, read from plain words: its name, then its arguments. No model is asked.

``roll 6``, ``roll sides=6`` and ``roll {"sides": 6}`` are one call; words without names are taken in the order of the
tool's parameters, and the last parameter, if it is a text, takes all that are left.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from worker.tools.spec import ToolSpec

LONGEST_CALL_CHARACTERS = 2000
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


class WantedCall(msgspec.Struct, frozen=True):
    """A call that the words ask for; ``arguments`` is None where they do not fit, and ``usage`` says what would."""

    tool: str
    usage: str
    arguments: dict[str, Any] | None


def read_tool_call(text: str, tools: Sequence[ToolSpec]) -> WantedCall | None:
    """Return the call that a text asks for, None if it does not begin with a tool's name."""
    name, _, rest = text.strip().partition(" ")
    if len(text) > LONGEST_CALL_CHARACTERS:
        return None
    spec = next((spec for spec in tools if spec.name.casefold() == name.casefold()), None)
    if spec is None:
        return None
    return WantedCall(spec.name, usage(spec), arguments_of(spec, rest.strip()))


def usage(spec: ToolSpec) -> str:
    """Return how a tool is called in words: ``roll SIDES``; what may be left out is in brackets."""
    required = set(spec.parameters.get("required", ()))
    words = [name.upper() if name in required else f"[{name.upper()}]" for name in _parameters(spec)]
    return " ".join([spec.name, *words])


def arguments_of(spec: ToolSpec, text: str) -> dict[str, Any] | None:
    """Return the arguments that a text gives, None where it fits the parameters in no way."""
    parameters = _parameters(spec)
    given = _json_object(text) if text.startswith("{") else _given_words(parameters, text)
    missing = set(spec.parameters.get("required", ())) - set(given or {})
    if given is None or missing or (parameters and not set(given) <= set(parameters)):
        return None
    return given


def _given_words(parameters: dict[str, Any], text: str) -> dict[str, Any] | None:
    words = _split(text)
    if words and all(_NAMED.fullmatch(word) for word in words):
        pairs = [(found[1], found[2]) for word in words if (found := _NAMED.fullmatch(word))]
        if len(dict(pairs)) < len(pairs):
            return None
    else:
        names = list(parameters)
        if names and len(words) > len(names) and _type_of(parameters[names[-1]]) == "string":
            words[len(names) - 1 :] = [" ".join(words[len(names) - 1 :])]
        if len(words) > len(names):
            return None
        pairs = list(zip(names, words, strict=False))
    return {name: _value(parameters.get(name, {}), word) for name, word in pairs}


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an apostrophe is no quotation mark that somebody forgot to close
        return text.split()


def _parameters(spec: ToolSpec) -> dict[str, Any]:
    found = spec.parameters.get("properties", {})
    return found if isinstance(found, dict) else {}


def _value(schema: Any, word: str) -> Any:
    """Return a word as the type that the schema names; one that is not of it goes as it is, for the tool to refuse."""
    if _type_of(schema) == "string":
        return word
    try:
        return msgspec.json.decode(word)
    except (msgspec.DecodeError, UnicodeError):
        return word


def _type_of(schema: Any) -> str:
    """Return the type a parameter's schema names, of several the first that is not null; a text where none is named."""
    if not isinstance(schema, dict):
        return "string"
    named = schema.get("type") or [_type_of(one) for key in ("anyOf", "oneOf") for one in schema.get(key, ())]
    types = [named] if isinstance(named, str) else [one for one in named if isinstance(one, str)]
    return next((one for one in types if one != "null"), "string")


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError):
        return None
