"""The result of a tool's function as the text that a model reads."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pydantic_core

from worker.tools.declaration import OUTPUT_LIMIT_BYTES

#: what a result begins with that is a picture, and its media type
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"RIFF": "image/webp",
    b"%PDF-": "application/pdf",
}


def result_text(value: object) -> str:
    """Return a text as it is, None as ``Done.``, bytes as the text they hold or by name, anything else as JSON.

    Raises what the value's own methods raise.
    """
    match value:
        case str():
            return str.__str__(value)
        case None:
            return "Done."
        case bytes() | bytearray() | memoryview():
            return bytes_text(bytes(value))
        case _:
            plain = pydantic_core.to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=_plain)
            return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def bytes_text(data: bytes) -> str:
    """Return the text that the bytes hold, or what they are where they hold none."""
    if b"\x00" not in data:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return f"[{len(data)} bytes of {media_type(data)}, which cannot be shown here]"


def media_type(data: bytes) -> str:
    """Return the media type that the first bytes tell, else that of any bytes."""
    return next((kind for begin, kind in _PICTURES.items() if data.startswith(begin)), "application/octet-stream")


def error_text(error: BaseException) -> str:
    """Return an exception as its class and its words."""
    return f"{type(error).__name__}: {error_words(error)}"


def error_words(error: BaseException) -> str:
    """Return what an exception says as valid UTF-8, or that it cannot be read: its ``__str__`` is a user's code."""
    try:
        return str(error).encode("utf-8", "replace").decode()
    except Exception as second:  # noqa: BLE001 - the boundary
        return f"(its text cannot be read: {type(second).__name__})"


def clip(text: str, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> str:
    """Return the text as valid UTF-8 of at most ``limit_bytes`` and, if it was longer, a line that says so."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit_bytes:
        return data.decode()
    return f"{data[:limit_bytes].decode('utf-8', 'ignore')}\n[cut: {limit_bytes} of {len(data)} bytes are shown]"


def _plain(value: object) -> Any:
    """Return what pydantic does not know in parts that it does: a struct by its fields, else as text."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, enc_hook=str)
    return str(value)
