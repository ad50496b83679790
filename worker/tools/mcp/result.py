"""The result of a call as the model reads it."""

from __future__ import annotations

import base64
from typing import Any

import mcp_types as types
import msgspec

from shared.errors import ToolError
from worker.tools.context import ToolContext
from worker.tools.mcp.wire import OURS

#: characters of what a mismatch with a server's own schema is said in
MISMATCH_CHARS = 300


def result_text(result: types.CallToolResult, context: ToolContext | None = None) -> str:
    """Return a result as the model reads it; images are shown through the context, what else is no text is named."""
    texts = [_block_text(block, context) for block in result.content]
    if not texts and (found := _structured(result)) is not None:
        return msgspec.json.encode(found, enc_hook=str).decode()
    return "\n".join(texts) or "Done."


def mismatch(result: types.CallToolResult, schema: object) -> str:
    """Return in what a result is not what its server declares, empty where it is."""
    from jsonschema import exceptions, validators

    if not isinstance(schema, dict) or result.is_error:
        return ""
    found = _structured(result)
    if found is None:
        return "it has no structured content, which its output schema wants"
    try:
        error = exceptions.best_match(validators.validator_for(schema)(schema).iter_errors(found))
    except Exception as problem:  # noqa: BLE001 - the boundary: the schema is a stranger's, and a validator may raise anything
        return f"its output schema cannot be used: {problem}"[:MISMATCH_CHARS]
    return f"{error.json_path}: {error.message}"[:MISMATCH_CHARS] if error is not None else ""


def _show(image: types.ImageContent, context: ToolContext) -> bool:
    """Show an image with the result; False for what is none, or too large."""
    try:
        context.attach(base64.b64decode(image.data, validate=True))
    except (ValueError, ToolError):
        return False
    return True


def _structured(result: types.CallToolResult) -> Any:
    ours = (result.meta or {}).get(OURS)
    return ours.get("structured") if isinstance(ours, dict) else result.structured_content


def _block_text(block: types.ContentBlock, context: ToolContext | None) -> str:
    match block:
        case types.ImageContent() if context is not None and _show(block, context):
            return f"[image of type {block.mime_type}, shown with this result]"
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
