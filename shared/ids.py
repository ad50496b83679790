"""Message ids: time-ordered and unique without coordination."""

from __future__ import annotations

import os
import time

#: random bytes of one id, six bits of which are left over, and of how many ids they are drawn at once
RANDOM_BYTES, DRAWN_AT_ONCE = 10, 256


def uuid7(unix_ms: int, random_bits: int) -> int:
    """Return the 128 bits of a version 7 UUID: 48 are unix milliseconds, 74 random (RFC 9562, section 5.7)."""
    value = (unix_ms & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random_bits & 0x3FFF_FFFF_FFFF_FFFF
    return value


def new_message_id() -> str:
    """Return a new message id: ``msg_`` and the hex of a version 7 UUID."""
    return message_id(os.urandom(RANDOM_BYTES))


class MessageIds:
    """Makes the ids of one process that makes many; a fork of it would make the same ones again.

    The random bytes of many are drawn at once: each draw lets go of the interpreter's lock, so that another thread goes
    first, which costs the loop more than all the rest of an id.
    """

    def __init__(self) -> None:
        self._drawn = memoryview(b"")

    def new(self) -> str:
        """Return a new message id."""
        if not self._drawn:
            self._drawn = memoryview(os.urandom(RANDOM_BYTES * DRAWN_AT_ONCE))
        random_bytes, self._drawn = self._drawn[:RANDOM_BYTES], self._drawn[RANDOM_BYTES:]
        return message_id(random_bytes)


def message_id(random_bytes: bytes | memoryview) -> str:
    """Return the id of a message that is made now."""
    return f"msg_{uuid7(time.time_ns() // 1_000_000, int.from_bytes(random_bytes) >> 6):032x}"


def made_at_s(message_id: str) -> float | None:
    """Return the unix seconds a message id was made at, None if it is none."""
    stamp = message_id.removeprefix("msg_")[:12]
    try:
        return int(stamp, 16) / 1000 if len(stamp) == 12 else None
    except ValueError:
        return None
