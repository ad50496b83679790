"""How much one transaction deletes: so many rows and bytes, for what is deleted is overwritten page by page."""

from __future__ import annotations

from collections.abc import Sequence

from shared.store.engine import Row

#: rows, and bytes of their bodies, that one transaction deletes at the most, but one row at the least
DELETE_LIMIT, DELETE_BYTES = 1000, 8 * 1024 * 1024


def last_of_some(rows: Sequence[Row]) -> object | None:
    """Return the key of the last row that a transaction of its own deletes; None where all that is left is little.

    ``rows`` are (key, bytes of the body), one more than ``DELETE_LIMIT`` where there are so many.
    """
    size = 0
    for number, (_, body_bytes) in enumerate(rows):
        size += body_bytes
        if number and (size > DELETE_BYTES or number >= DELETE_LIMIT):
            key: object = rows[number - 1][0]
            return key
    return None
