"""What a model is told of MCP: names and schemas of the tools, and their results as text."""

from __future__ import annotations

import re
from typing import Any

import mcp_types as types
import msgspec

#: characters of a tool's name that every provider takes
NAME_LIMIT_CHARS = 64
#: characters of a description; some servers put a manual there
DESCRIPTION_LIMIT_CHARS = 4000


def tool_name(server: str, tool: str) -> str:
    """Return ``server__tool`` in the characters and length that every provider takes."""
    return f"{server}__{re.sub('[^A-Za-z0-9_-]', '_', tool)}"[:NAME_LIMIT_CHARS]


def tool_description(tool: types.Tool) -> str:
    """Return what the server says of a tool."""
    return (tool.description or tool.title or "")[:DESCRIPTION_LIMIT_CHARS]


def tool_schema(tool: types.Tool) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments; always an object with properties, as providers want it."""
    return {"type": "object", "properties": {}} | tool.input_schema


def may_repeat(tool: types.Tool) -> bool:
    """Tell whether a call that may have happened may be made again: only where the server says that it is safe."""
    notes = tool.annotations
    return notes is not None and bool(notes.read_only_hint or notes.idempotent_hint)


def result_text(result: types.CallToolResult) -> str:
    """Return a result as the model reads it; what is no text is named."""
    texts = [_block_text(block) for block in result.content]
    if not texts and result.structured_content is not None:
        return msgspec.json.encode(result.structured_content, enc_hook=str).decode()
    return "\n".join(texts) or "Done."


def _block_text(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.ResourceLink():
            return f"[resource {block.name}: {block.uri}]"
        case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text
        case types.EmbeddedResource():
            return f"[resource {block.resource.uri}, which is no text]"
        case _:
            return f"[{block.type} of type {block.mime_type}, which cannot be shown here]"
