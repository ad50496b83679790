"""Tool calls put together from the pieces that servers stream, whatever numbers and ids they give them."""

from __future__ import annotations

import itertools
import json
import re
import secrets
from typing import Any

import msgspec
from msgspec.json import encode

from shared.loose_json import decode_loose, mend_surrogates
from worker.tools.spec import ToolCall

#: what Kimi adds to a name
_NUMBER = re.compile(r":\d+$")
#: it tells where an object ends, which msgspec does not
_DECODER = json.JSONDecoder(strict=False)


class PartialCall:
    """A tool call while it is streamed; ``opaque`` is what its provider added to it."""

    def __init__(self, index: int | None, id_: str, name: str = "", arguments: str = "") -> None:
        self.index = index
        self.id = id_
        self.name = name
        self.opaque: dict[str, Any] = {}
        self._arguments = [arguments] if arguments else []

    def add(self, arguments: str) -> None:
        """Take the next piece of the arguments."""
        if arguments:
            self._arguments.append(arguments)

    @property
    def arguments(self) -> str:
        """The arguments so far, as they came."""
        return "".join(self._arguments)

    @property
    def is_whole(self) -> bool:
        """Whether the arguments so far are an object."""
        return is_object(self.arguments)

    def calls(self, prefix: str) -> list[ToolCall]:
        """Return the call; one that came without an id gets one of its own.

        They are several where their arguments came under one number (OmniRoute's, Ollama's doors).
        """
        name = plain_name(mend_surrogates(self.name))
        ids = [self.id] if self.id else []
        calls = []
        for arguments in self._meant():
            id_ = ids.pop() if ids else f"{prefix}_{secrets.token_hex(12)}"
            calls.append(ToolCall(id_, name, plain_arguments(mend_surrogates(arguments))))
        return calls

    def _meant(self) -> list[str]:
        """Return the arguments that are meant by pieces which do not make one object when they are joined.

        Some servers send all of it again at the end, or in each piece all that came so far.
        """
        text = self.arguments
        if not text.lstrip().startswith("{") or self.is_whole:
            return [text]
        pieces = self._arguments
        if is_object(pieces[-1]) and all(piece.startswith(before) for before, piece in itertools.pairwise(pieces)):
            return pieces[-1:]
        objects = [one for one in split_objects(text) if is_object(one)]
        full = [one for one in objects if one.strip("{} \n")]
        return (full[:1] if len(set(full)) == 1 else full) or objects[:1] or [text]


class StreamedCalls:
    """The calls of one chat completion, in the order in which they began.

    What a piece belongs to is told by its id, else by its number, else it goes on with the last call. Neither can be
    trusted alone: servers are known that number every call 0, that give no ids, and that give a new id in every piece.
    A piece that names a function begins a call of its own where the arguments before it are whole.
    """

    def __init__(self) -> None:
        self.calls: list[PartialCall] = []
        self._of_chunk: list[PartialCall] = []

    def begin_chunk(self) -> None:
        """Take what follows as the pieces of the next chunk; in one chunk two pieces that are equal are two calls."""
        self._of_chunk = []

    def add(self, index: int | None, id_: str, name: str, arguments: str) -> PartialCall:
        """Take one piece, and return the call it belongs to."""
        call = self._goes_on_with(index, id_)
        if call is None or self._begins_another(call, id_, name, arguments):
            call = PartialCall(index, id_, name)
            self.calls.append(call)
        elif name and id_ == call.id and name == call.name and arguments and arguments == call.arguments:
            if call not in self._of_chunk:
                return call  # the whole call once more, at its end
            call = PartialCall(index, id_, name)
            self.calls.append(call)
        self._of_chunk.append(call)
        call.id = call.id or id_
        call.name = call.name or name
        call.add(arguments)
        return call

    def _goes_on_with(self, index: int | None, id_: str) -> PartialCall | None:
        latest_first = self.calls[::-1]
        found = next((call for call in latest_first if id_ and call.id == id_), None)
        if found is None and index is not None:
            return next((call for call in latest_first if call.index == index), None)
        if found is None and not id_ and latest_first:
            return latest_first[0]
        return found

    @staticmethod
    def _begins_another(call: PartialCall, id_: str, name: str, arguments: str) -> bool:
        if not name:
            return False
        if not call.arguments:  # one without arguments, or one whose arguments begin with this piece
            return name != call.name or (not arguments and (not id_ or id_ != call.id))
        new_id = bool(id_) and id_ != call.id
        return call.is_whole and (new_id or (bool(arguments) and arguments != call.arguments))


def plain_name(name: str) -> str:
    """Return the name that is meant: gpt-oss' channels leak into it, and it or Kimi may name its namespace."""
    name = name.partition("<|")[0].strip().removeprefix("functions.")
    return _NUMBER.sub("", name)


def split_objects(text: str) -> list[str]:
    """Return the objects that stand in a row in a text, or the text where it is not made of objects alone."""
    objects: list[str] = []
    at = 0
    while at < len(text):
        found = value_at(text, at)
        if found is None:
            return [text]
        _, end = found
        objects.append(text[at:end])
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return objects


def value_at(text: str, at: int) -> tuple[Any, int] | None:
    """Return the JSON value that stands at a place of a text, and where it ends; None where none does."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    return value, end


def is_object(arguments: str) -> bool:
    """Tell whether arguments are a JSON object."""
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def plain_arguments(arguments: str) -> str:
    """Return arguments as the JSON object that is meant: null, nothing, and an object inside a string are one.

    What is meant by anything else is not known, and it stays as it is.
    """
    text = arguments.strip()
    if text.startswith("{}") and is_object(text[2:]):  # an empty object first, then the real one
        return text[2:]
    if text.startswith("{"):
        return text
    for _ in range(3):
        try:
            value = decode_loose(text.encode())
        except ValueError:
            return arguments if text else "{}"
        if value is None or value in ("", []):
            return "{}"
        if isinstance(value, dict):
            return text
        if not isinstance(value, str):
            return arguments
        text = value.strip()
    return arguments


def arguments_text(value: object) -> str:
    """Return a piece of arguments as text: some servers give the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode()
