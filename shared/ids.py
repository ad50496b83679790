"""Message ids: time-ordered and unique without coordination."""

from __future__ import annotations

import secrets
import time


def uuid7(unix_ms: int, random_bits: int) -> int:
    """Return the 128 bits of a version 7 UUID: 48 are unix milliseconds, 74 random (RFC 9562, section 5.7)."""
    value = (unix_ms & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random_bits & 0x3FFF_FFFF_FFFF_FFFF
    return value


def new_message_id() -> str:
    """Return a new message id: ``msg_`` and the hex of a version 7 UUID."""
    return f"msg_{uuid7(time.time_ns() // 1_000_000, secrets.randbits(74)):032x}"


def made_at_s(message_id: str) -> float | None:
    """Return the unix seconds a message id was made at, None if it is none."""
    stamp = message_id.removeprefix("msg_")[:12]
    try:
        return int(stamp, 16) / 1000 if len(stamp) == 12 else None
    except ValueError:
        return None
