"""JSON as programs of others write it: read where its meaning is clear, though a strict reader refuses it."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: a string whole, or what stands before each value and name outside of strings
_STRING_OR_START = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,:]', re.DOTALL)
_STARTS = b"[{,:"
#: from this size on numbers are read with care: msgspec takes 7 µs for one like 1e300, a second for each 700 KiB
_CAREFUL_BYTES = 4096


def decode_loose(text: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError (msgspec.DecodeError is one).

    Beside what RFC 8259 allows, NaN, control characters in strings, bytes that are no UTF-8 and lone surrogates are
    taken; the last stay in the strings, since the other half may come with the next text (``mend_surrogates``).
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(text.decode("utf-8-sig", "replace"), strict=False)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def decode_mended(text: bytes, kind: type[T]) -> T:
    """Decode a JSON text into a struct, mended as ``mend_json`` does where it is refused as it stands.

    Raises what msgspec raises: msgspec.DecodeError, UnicodeDecodeError and RecursionError.
    """
    try:
        return _decode(text, kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _decode(mend_json(text), kind)


def has_more_values(text: bytes, most: int) -> bool:
    """Tell whether a JSON text has more names and values than that, without reading one of them.

    What reads them cannot be interrupted, so that everybody else waits for it; this can be.
    """
    if sum(map(text.count, _STARTS)) <= most:
        return False
    starts = 0
    for found in _STRING_OR_START.finditer(text):
        starts += found[0] in _STARTS
        if starts > most:
            return True
    return False


def _decode(text: bytes, kind: type[T]) -> T:
    if len(text) < _CAREFUL_BYTES:
        return msgspec.json.decode(text, type=kind)
    return msgspec.json.Decoder(kind, float_hook=_finite).decode(text)


def _finite(number: str) -> float:
    """Return a number of any type. Raises ValueError for one that is past the largest."""
    if math.isinf(value := float(number)):
        raise ValueError("Number out of range")
    return value


def mend_json(text: bytes) -> bytes:
    """Return a JSON text without what keeps a strict reader from it though its meaning is clear.

    That is a byte order mark, and halves of characters written alone (they become U+FFFD). What is no JSON is returned
    as it is.
    """
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if not _SURROGATE_ESCAPE.search(text):
        return text
    try:
        return mend_surrogates(json.dumps(json.loads(text), ensure_ascii=False)).encode()
    except (ValueError, RecursionError):
        return text


def mend_surrogates(text: str) -> str:
    """Join the two halves of a character that were written apart; a half alone becomes U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mend_all(value: Any) -> Any:
    """Return a JSON value with ``mend_surrogates`` done to every string in it."""
    match value:
        case str():
            return mend_surrogates(value)
        case list():
            return [mend_all(one) for one in value]
        case dict():
            return {mend_surrogates(name): mend_all(one) for name, one in value.items()}
        case _:
            return value
