"""A transcript as the messages of a chat completion, in the order that every server's template takes.

One system message, which comes first; then users and assistants alternate, a user first; the results of tools stand
behind the call that asked for them and count as the user's side. Templates of Mistral, Gemma and Qwen raise an error
on anything else. What a transcript has otherwise is merged: a pure function of it, so that a prompt cache holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec.json import encode

from shared.loose_json import decode_loose, mend_all
from worker.agent.models import provider_state
from worker.agent.models.provider_state import FIELD, MARK

#: what an assistant says between a tool's result and words of the user that came while the tool ran
HEARD = "I have the result. Go on."
BEGAN_EARLIER = "(this conversation began earlier)"
_SURROGATE_MARKS = (b"\\ud", b"\\uD")
#: how the messages begin that this project writes, so that most need not be decoded to know whose they are
_ROLES = {
    b'{"role":"use': "user",
    b'{"role":"ass': "assistant",
    b'{"role":"too': "tool",
    b'{"role":"sys': "system",
}


class _Role(msgspec.Struct):
    role: str = ""


_ROLE_DECODER = msgspec.json.Decoder(_Role)


def role_of(message: bytes) -> str:
    """Return whose message it is; a developer's is a system message."""
    role = _ROLES.get(message[:12])
    if role is None:
        role = _ROLE_DECODER.decode(message).role
    return "system" if role == "developer" else role


def as_sent(
    system: str, messages: Sequence[bytes], origin: str, *, takes_system: bool = True, takes_state: bool = True
) -> tuple[list[bytes], set[str]]:
    """Return the messages for the model called ``origin``, and the names in the provider state that goes with them.

    ``takes_system`` and ``takes_state`` are what the server is known to take.
    """
    leading = 0
    while leading < len(messages) and role_of(messages[leading]) == "system":
        leading += 1
    prompts = [*([system] if system.strip() else []), *(_text_of(message) for message in messages[:leading])]
    prompt = "\n\n".join(filter(None, prompts))
    opaque: set[str] = set()
    plain = [_plain(message, origin, opaque, takes_state=takes_state) for message in messages[leading:]]
    found = _alternating(plain)
    if prompt and takes_system:
        found.insert(0, encode({"role": "system", "content": prompt}))
    elif prompt:
        found = _alternating([encode({"role": "user", "content": prompt}), *found])
    return found, opaque


def _plain(message: bytes, origin: str, opaque: set[str], *, takes_state: bool) -> bytes:
    """Return a message as its server reads it: its own state put back, another's left out, no half character."""
    if MARK in message:
        return _with_state(message, origin, opaque, takes_state=takes_state)
    if any(mark in message for mark in _SURROGATE_MARKS):
        return encode(mend_all(decode_loose(message)))
    return message


def _with_state(message: bytes, origin: str, opaque: set[str], *, takes_state: bool) -> bytes:
    fields: dict[str, Any] = mend_all(decode_loose(message))
    state = provider_state.decode_state(fields.pop(FIELD, None))
    if state.origin == origin and takes_state:
        fields |= {name: value for name, value in state.message.items() if name not in fields}
        opaque |= state.message.keys()
        calls = fields.get("tool_calls") or []
        for call, own in zip(calls, state.calls, strict=False):
            if own:
                provider_state.merge(call, own)
                opaque |= own.keys()
    return encode(fields)


def _alternating(messages: Iterable[bytes]) -> list[bytes]:
    found: list[bytes] = []
    before = ""
    for message in map(_as_users_side, messages):
        role = role_of(message)
        if role == "assistant" and not before:
            found.append(encode({"role": "user", "content": BEGAN_EARLIER}))
        if role == "user" and before == "tool":
            found.append(encode({"role": "assistant", "content": HEARD}))
        if role == before and role != "tool" and b'"tool_calls"' not in found[-1]:
            found[-1] = _merged(found[-1], message)
        else:
            found.append(message)
        before = role
    return found


def _as_users_side(message: bytes) -> bytes:
    """Return a message; a system message that comes late stands on the user's side, where all servers take it."""
    if role_of(message) != "system":
        return message
    return encode({"role": "user", "content": f"<system>{_text_of(message)}</system>"})


def _merged(first: bytes, second: bytes) -> bytes:
    """Return two messages of one role as one: the second's fields, with the words of both."""
    one, other = decode_loose(first), decode_loose(second)
    return encode(one | other | {"content": _joined(one.get("content"), other.get("content"))})


def _joined(one: Any, other: Any) -> Any:
    if not one or not other:
        return one or other
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    return [*_parts(one), *_parts(other)]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _text_of(message: bytes) -> str:
    content = mend_all(decode_loose(message).get("content"))
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if isinstance(part, dict) and part.get("text"))
    return content or ""
