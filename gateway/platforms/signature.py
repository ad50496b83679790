"""Comparing signatures and timestamps of requests without ever raising on hostile input."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping

import msgspec

from shared.errors import SignatureRejected

TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)

#: how far a signed timestamp may be from our clock, either way
WINDOW_S = 300


def same(first: str, second: str) -> bool:
    """Compare two texts in constant time; compare_digest itself raises on text that is not ASCII."""
    return hmac.compare_digest(first.encode("utf-8", "surrogatepass"), second.encode("utf-8", "surrogatepass"))


def check_timestamp(name: str, text: str, now: float) -> None:
    """Check a header of unix seconds against the clock. Raises SignatureRejected."""
    if not TIMESTAMP.fullmatch(text):
        raise SignatureRejected(f"{name} is not a time in unix seconds")
    if abs(now - int(text)) > WINDOW_S:
        raise SignatureRejected(
            f"{name} is {now - int(text):.0f} s old; it must be within {WINDOW_S} s of this machine's clock"
        )


def required_header(headers: Mapping[str, str], name: str) -> str:
    """Return a header's value. Raises SignatureRejected where it is missing, empty or not ASCII."""
    value = headers.get(name, "")
    if not value:
        raise SignatureRejected(f"the {name} header is missing")
    if not value.isascii():
        raise SignatureRejected(f"the {name} header is not ASCII")
    return value


def check_header(headers: Mapping[str, str], name: str, expected: str, hint: str) -> None:
    """Check that a header says what it has to; ``hint`` tells what to do. Raises SignatureRejected."""
    if not same(required_header(headers, name), expected):
        raise SignatureRejected(f"{name} does not match: {hint}")


def in_base64(digest: bytes) -> str:
    """Write a digest as base64."""
    return base64.b64encode(digest).decode()


class HmacSignature(msgspec.Struct, frozen=True, kw_only=True):
    """How a platform signs a request's body: HMAC-SHA256 with a secret that both know."""

    #: the header with the signature, in lower case
    header: str
    #: what to do where it does not match
    hint: str
    #: stands before the digest
    prefix: str = ""
    written: Callable[[bytes], str] = bytes.hex
    #: the header with the time of signing in unix seconds; empty where none is signed
    timestamp_header: str = ""
    #: what is signed before the body, with ``{timestamp}`` in it
    before_body: str = ""

    def sign(self, secret: str, raw: bytes, timestamp: str = "") -> str:
        """Return the signature of a body."""
        content = self.before_body.format(timestamp=timestamp).encode() + raw
        return self.prefix + self.written(hmac.digest(secret.encode(), content, hashlib.sha256))

    def check(self, secret: str, headers: Mapping[str, str], raw: bytes, now: float) -> None:
        """Check a request. Raises SignatureRejected."""
        timestamp = ""
        if self.timestamp_header:
            timestamp = required_header(headers, self.timestamp_header)
            check_timestamp(self.timestamp_header, timestamp, now)
        check_header(headers, self.header, self.sign(secret, raw, timestamp), self.hint)
