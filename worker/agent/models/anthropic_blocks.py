"""Transcript messages as Anthropic's content blocks: spliced from raw JSON, each message converted once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.json import encode

from shared.loose_json import decode_loose, mend_all
from worker.agent.models.provider_state import ProviderState, decode_state

#: bounds of the cache of converted messages: so many, and only small ones (a long one costs its length anyway)
CACHED_MESSAGES = 4096
CACHED_MESSAGE_BYTES = 4096

_BLANK = re.compile(rb'null|"(?: |\\[nrt])*"')
_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_CACHE_CONTROL = b',"cache_control":{"type":"ephemeral"}}'
_EMPTY = b'{"type":"text","text":"(no text)"}'
_BEGAN_EARLIER = b'{"type":"text","text":"(this conversation began earlier)"}'


class _Function(msgspec.Struct):
    name: msgspec.Raw
    arguments: str = ""


class _Call(msgspec.Struct):
    id: str
    function: _Function


class _Message(msgspec.Struct):
    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")
    tool_calls: list[_Call] = []
    tool_call_id: str = ""
    provider_state: msgspec.Raw = msgspec.Raw(b"null")


class Piece(msgspec.Struct, frozen=True):
    """What one transcript message becomes: blocks of one role, joined by commas, empty if nothing is left of it."""

    role: str
    blocks: bytes
    #: where code ran for it, and when that ends
    container: Mapping[str, Any] = {}


class Converted(NamedTuple):
    """A transcript in the form of the Messages API: two JSON arrays, and the container that code ran in last."""

    system: bytes
    messages: bytes
    #: its id, empty where there is none, or none any more
    container: str = ""


_NO_STATE = msgspec.Raw(b"null")
_DECODER = msgspec.json.Decoder(_Message)
_OBJECTS = msgspec.json.Decoder(dict[str, object])


class BlockConverter:
    """Converts transcripts for the model of this name; holds the small messages it converted last."""

    def __init__(self, origin: str = "") -> None:
        self._origin = origin
        self._cached = lru_cache(CACHED_MESSAGES)(convert)

    @property
    def hits(self) -> int:
        """How many conversions were saved."""
        return self._cached.cache_info().hits

    def system_and_messages(
        self, system: str, messages: Sequence[bytes], *, marks: bool = True, takes_state: bool = True
    ) -> Converted:
        """Return the JSON arrays ``system`` and ``messages``, and the container.

        With ``marks`` their ends carry the marks of the prompt cache. System messages that open the transcript join the
        system prompt. Later ones keep their place, as text of the user's side inside ``<system>``, because not every
        server of this API has the system role there.
        """
        origin = self._origin if takes_state else ""
        pieces = [
            self._cached(message, origin) if len(message) <= CACHED_MESSAGE_BYTES else convert(message, origin)
            for message in messages
        ]
        leading = 0
        while leading < len(pieces) and pieces[leading].role == "system":
            leading += 1
        prompt = [_text(encode(system))] if system.strip() else []
        prompt += [piece.blocks for piece in pieces[:leading] if piece.blocks]
        mark = marked if marks else bytes
        shown = _messages(pieces[leading:], mark)
        return Converted(_array([mark(b",".join(prompt))] if prompt else []), shown, _last_container(pieces))


def convert(message: bytes, origin: str = "") -> Piece:
    """Convert one transcript message for the model of this name. Raises ValueError."""
    if b"\\ud" in message or b"\\uD" in message:
        message = encode(mend_all(decode_loose(message)))
    read = _DECODER.decode(message)
    content = bytes(read.content)
    match read.role:
        case "tool":
            result = b'{"type":"tool_result","tool_use_id":' + _id(read.tool_call_id)
            return Piece("user", result + (b"}" if _BLANK.fullmatch(content) else b',"content":' + content + b"}"))
        case "assistant":
            if origin and read.provider_state != _NO_STATE:
                state = decode_state(decode_loose(bytes(read.provider_state)))
                if state.origin == origin and (blocks := _own_blocks(read, state)):
                    return Piece("assistant", b",".join(blocks), state.container)
            return Piece("assistant", b",".join([*_texts(content), *map(_tool_use, read.tool_calls)]))
        case "system":
            return Piece("system", b",".join(_texts(content)))
        case _:
            return Piece("user", b",".join(_texts(content)) or _EMPTY)


def marked(blocks: bytes) -> bytes:
    """Return the blocks with a cache mark on the last: the provider keeps what it read up to there."""
    return blocks[:-1] + _CACHE_CONTROL


def _texts(content: bytes) -> list[bytes]:
    if _BLANK.fullmatch(content) or content == b"[]":
        return []
    # A list of parts has the same form on both sides, as far as text goes.
    return [content[1:-1]] if content.startswith(b"[") else [_text(content)]


def _text(raw: bytes) -> bytes:
    return b'{"type":"text","text":' + raw + b"}"


def _tool_use(call: _Call) -> bytes:
    return (
        b'{"type":"tool_use","id":' + _id(call.id) + b',"name":' + bytes(call.function.name)
        + b',"input":' + _input(call.function.arguments) + b"}"
    )  # fmt: skip


def _last_container(pieces: Sequence[Piece]) -> str:
    """Return the id of the container that code ran in last, while it is there."""
    told = next((piece.container for piece in reversed(pieces) if piece.container), {})
    try:
        is_there = datetime.fromisoformat(str(told.get("expires_at"))) > datetime.now(UTC)
    except (ValueError, TypeError):  # no time, or one that names no zone
        is_there = True
    return str(told.get("id") or "") if is_there else ""


def _own_blocks(message: _Message, state: ProviderState) -> list[bytes]:
    """Return an answer's blocks as its provider gave them; none where they cannot be put back."""
    blocks: list[bytes] = []
    put_back = 0
    for block in state.blocks:
        number = block.get("call")
        if block.get("type") != "tool_use":
            if block.get("type") != "text" or str(block.get("text")).strip():
                blocks.append(encode(mend_all(block)))
        elif isinstance(number, int) and number < len(message.tool_calls):
            own = {name: value for name, value in block.items() if name not in {"type", "call"}}
            call = _tool_use(message.tool_calls[number])
            blocks.append(call[:-1] + b"," + encode(own)[1:] if own else call)
            put_back += 1
    return blocks if put_back == len(message.tool_calls) else []


def _id(call_id: str) -> bytes:
    """Return a call's id in the letters Anthropic takes: another provider of the chain may have given it."""
    return encode(_UNSAFE.sub("_", call_id) or "call")


def _input(arguments: str) -> bytes:
    """Return arguments as the object Anthropic insists on; what the model wrote may not be one."""
    try:
        _OBJECTS.decode(arguments)
    except msgspec.DecodeError:
        return encode({"unreadable_arguments": arguments})
    return arguments.encode()


def _messages(pieces: Iterable[Piece], mark: Callable[[bytes], bytes] = marked) -> bytes:
    """Return the messages array: neighbours of one role merged, a user first, two ends marked.

    They are the end, which the next call reads from the cache, and the end of the user's side before it, which was the
    end of the call before: a provider looks for what it kept a few blocks behind a mark only, and a step with many tool
    calls has more.
    """
    grouped: list[tuple[str, list[bytes]]] = []
    for piece in pieces:
        role, blocks = piece.role, piece.blocks
        if not blocks:
            continue
        if role == "system":
            role, blocks = "user", _text(b'"<system>"') + b"," + blocks + b"," + _text(b'"</system>"')
        if not grouped or grouped[-1][0] != role:
            grouped.append((role, []))
        grouped[-1][1].append(blocks)
    if not grouped or grouped[0][0] != "user":
        grouped.insert(0, ("user", [_BEGAN_EARLIER]))
    before = [side for role, side in grouped[:-1] if role == "user"]
    for side in (*before[-1:], grouped[-1][1]):
        side[-1] = mark(side[-1])
    return _array([b'{"role":"' + role.encode() + b'","content":' + _array(blocks) + b"}" for role, blocks in grouped])


def _array(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"
