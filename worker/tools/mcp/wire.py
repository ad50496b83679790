"""What a server says, mended before the mcp package reads it: one bad part harms itself alone.

The package refuses a whole list of tools for one bad entry, and a whole result for a part that does not match the
version they agreed on. What it would not take travels in ``_meta`` under a name of our own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import mcp_types as types
import msgspec
import pydantic
from mcp.shared.message import SessionMessage

#: where in ``_meta`` the parts are that the package is not shown
OURS = "gatehouse"
#: characters of a content block that is none, as text
ODD_BLOCK_CHARS = 20_000

_BLOCK: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(types.ContentBlock)
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")

Received = SessionMessage | Exception


class MendedStream:
    """A stream of messages from a server, mended one by one; all else is the stream's own.

    ``on_end`` is called when it ends or breaks.
    """

    def __init__(self, stream: Any, on_end: Callable[[], None] = lambda: None) -> None:
        self._stream = stream
        self._on_end = on_end

    async def __aenter__(self) -> MendedStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> object:
        return await self._stream.__aexit__(*error)

    def __aiter__(self) -> AsyncIterator[Received]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Received]:
        async for item in self._stream:
            if isinstance(item, Exception):
                self._on_end()
            yield mended(item)
        self._on_end()

    async def receive(self) -> Received:
        """Return the next message."""
        return mended(await self._stream.receive())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mended(item: Received) -> Received:
    """Return a message as the package takes it."""
    if not isinstance(item, SessionMessage) or not isinstance(item.message, types.JSONRPCResponse):
        return item
    result = item.message.result
    if "tools" in result:
        result = _mended_list(result)
    elif "content" in result or "structuredContent" in result:
        result = _mended_result(result)
    else:
        return item
    return dataclasses.replace(item, message=item.message.model_copy(update={"result": result}))


def _mended_list(result: dict[str, Any]) -> dict[str, Any]:
    tools, left_out = [], {}
    entries = result["tools"] if isinstance(result["tools"], list) else []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            tools.append(_mended_tool(name, entry))
        else:
            left_out[f"entry {number}"] = "it has no name"
    cursor = result.get("nextCursor")
    made: dict[str, Any] = {"tools": tools, "_meta": {OURS: {"left_out": left_out}}}
    kept = {key: result[key] for key in ("ttlMs", "cacheScope", "resultType") if key in result}
    return made | kept | ({"nextCursor": cursor} if isinstance(cursor, str) else {})


def _mended_tool(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    texts = {key: entry[key] for key in ("title", "description") if isinstance(entry.get(key), str)}
    notes = entry.get("annotations")
    hints = {key: notes[key] for key in _HINTS if isinstance(notes.get(key), bool)} if isinstance(notes, dict) else {}
    schema = entry.get("inputSchema")
    ours = {"input": schema, "output": entry.get("outputSchema")}
    shown = schema if _is_plain(schema) else {"type": "object"}
    return {"name": name, **texts, "annotations": hints, "inputSchema": shown, "_meta": {OURS: ours}}


def _is_plain(schema: object) -> bool:
    """Tell whether a schema is what every version of the protocol takes."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return (
        isinstance(properties, dict)
        and all(isinstance(part, dict | bool) for part in properties.values())
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
        and isinstance(schema.get("$schema", ""), str)
    )


def _mended_result(result: dict[str, Any]) -> dict[str, Any]:
    content = result.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = content if isinstance(content, list) else [] if content is None else [content]
    meta = {OURS: {"structured": result["structuredContent"]}} if "structuredContent" in result else {}
    made = {"content": [_mended_block(block) for block in blocks], "isError": result.get("isError") in (True, "true")}
    kept = {key: result[key] for key in ("resultType",) if key in result}
    return made | kept | {"_meta": meta}


def _mended_block(block: object) -> object:
    try:
        _BLOCK.validate_python(block, by_name=False)
        if isinstance(block, dict) and "type" in block:
            return block
    except pydantic.ValidationError:
        pass
    if isinstance(block, dict) and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    text = block if isinstance(block, str) else msgspec.json.encode(block, enc_hook=str).decode()
    return {"type": "text", "text": text[:ODD_BLOCK_CHARS]}
