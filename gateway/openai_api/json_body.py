"""The bytes of a request's body: inflated, read as JSON into a struct, and refused by the name of what is wrong."""

from __future__ import annotations

import re
import zlib
from typing import TypeVar

import msgspec

from gateway.responses import Refused
from shared.loose_json import decode_mended, has_more_values

T = TypeVar("T")
#: parts that one gzip body may have; each costs a copy of what is behind it
MOST_MEMBERS = 64
#: names and values of one body, 5,000 messages of an agent with its tools' calls have less; reading them is one step
#: of at most 20 ms for which the whole process waits
MOST_VALUES = 100_000
_GZIP = b"\x1f\x8b"
#: zlib's window for a gzip or a zlib header, whichever there is
_ANY_HEADER = 32 + zlib.MAX_WBITS


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """Return a 400 that names the parameter."""
    return Refused(400, message, param=param, code=code)


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Return the body without its content encoding. Raises Refused: 415 for an unknown one, 413 past the limit."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip" | "deflate":
            pass
        case other:
            raise Refused(415, f"the content encoding {other[:40]!r} is not served; gzip and deflate are")
    window, found = -zlib.MAX_WBITS if is_bare(body, encoding) else _ANY_HEADER, b""
    for _ in range(MOST_MEMBERS):
        inflater = zlib.decompressobj(window)
        try:
            found += inflater.decompress(body, limit_bytes + 1 - len(found))
        except zlib.error:
            raise invalid("the body is not what its content encoding says") from None
        if len(found) > limit_bytes:
            raise Refused(413, f"the body is larger than {limit_bytes} bytes")
        if not inflater.eof:
            raise invalid("the body is cut off")
        body = inflater.unused_data
        if not body.startswith(_GZIP):  # a gzip body may have several members (RFC 1952, 2.2)
            return found
    raise invalid(f"the body has more than {MOST_MEMBERS} members")


def is_bare(body: bytes, encoding: str) -> bool:
    """Tell whether deflated data lacks the header that RFC 9110 asks for, as some clients send it (RFC 1950, 2.2)."""
    head = int.from_bytes(body[:2].ljust(2, b"\0"), "big")
    return encoding.strip().lower() == "deflate" and (head >> 8 & 0x0F != zlib.DEFLATED or head % 31 != 0)


def decode(body: bytes, type: type[T]) -> T:  # noqa: A002 - the word of msgspec
    """Read a JSON object; a lone half of a surrogate pair becomes U+FFFD. Raises Refused."""
    if has_more_values(body, MOST_VALUES):
        raise invalid(f"the body has more than {MOST_VALUES} names and values")
    try:
        return decode_mended(body, type)
    except msgspec.ValidationError as error:
        raise invalid(*problem_and_param(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        why = "it is empty" if not body.strip() else str(error) or "it is nested too deeply"
        raise invalid(f"the body is not a JSON object in UTF-8: {why}") from None


def problem_and_param(words: str) -> tuple[str, str | None]:
    """Return what msgspec found wrong, and the path to it as OpenAI's errors have it."""
    problem, _, path = words.partition(" - at `$")
    param = path.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "").strip(".") or None
    if problem.startswith("Expected `null`") and "|" not in problem:
        return f"{param} is not served", param
    if refused := re.match(r"Invalid enum value (.*)", problem):
        return f"{param} {refused[1]} is not served", param
    if unknown := re.search(r"unknown field `(.*)`$", problem):
        name = f"{param}.{unknown[1]}" if param else unknown[1]
        return f"Unrecognized request argument supplied: {name}", name
    if missing := re.search(r"missing required field `(.*)`$", problem):
        return problem, f"{param}.{missing[1]}" if param else missing[1]
    return f"{param}: {problem}" if param else problem, param
