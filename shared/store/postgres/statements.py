"""How a statement of ``shared/store/sql`` is written for PostgreSQL, and its values and rows for the wire.

Values and rows go as the protocol's own types (https://www.postgresql.org/docs/current/protocol-overview.html): rows in
binary form, values as text but for bytes. Text holds no U+0000 there; it becomes U+FFFD.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from shared.store.engine import Row

#: object ids of types, from the server's catalog pg_type
BOOL, BYTES, INT8, INT4, TEXT, FLOAT8, VARCHAR, TEXT_ARRAY = 16, 17, 20, 23, 25, 701, 1043, 1009
_TYPES: dict[type, int] = {bool: INT8, int: INT8, float: FLOAT8, str: TEXT, bytes: BYTES, list: TEXT_ARRAY}

_INT8, _INT4, _FLOAT8 = struct.Struct(">q").unpack, struct.Struct(">i").unpack, struct.Struct(">d").unpack
_DECODERS: dict[int, Callable[[bytes], Any]] = {
    BOOL: lambda body: body == b"\x01",
    BYTES: bytes,
    INT8: lambda body: _INT8(body)[0],
    INT4: lambda body: _INT4(body)[0],
    TEXT: bytes.decode,
    VARCHAR: bytes.decode,
    FLOAT8: lambda body: _FLOAT8(body)[0],
}


class Statement(NamedTuple):
    """A statement as PostgreSQL takes it."""

    #: with ``$1`` for the first value
    text: bytes
    #: whether it may change something
    writes: bool


class Values(NamedTuple):
    """The values of one execution."""

    types: tuple[int, ...]
    bodies: list[bytes | None]
    #: 1 for a body in binary form, 0 for text
    formats: list[int]


#: a choice of rows inside a statement that changes them
_CHOICE = re.compile(r"IN\s*\((SELECT .*?/\*SKIP LOCKED\*/)\)", re.DOTALL)


@functools.cache
def statement(sql: str) -> Statement:
    """Return a statement of the shared ones for PostgreSQL.

    A plan may run the choice of rows once for each row it is compared with, and each run locks others than those before
    it, past every LIMIT. As a WITH query it runs once (https://www.postgresql.org/docs/current/queries-with.html).
    """
    text = (
        _CHOICE.sub(r"IN (WITH chosen AS MATERIALIZED (\1) SELECT * FROM chosen)", sql)
        .replace("/*SKIP LOCKED*/", "FOR UPDATE SKIP LOCKED")
        .replace("/*LOCK*/", "FOR UPDATE")
        .replace("/*EPOCH*/ NULL", "nextval('epoch')")
        .strip()
    )
    text = re.sub(r" INDEXED BY \w+", "", text)
    parts = text.split("?")
    numbered = parts[0] + "".join(f"${number}{part}" for number, part in enumerate(parts[1:], 1))
    return Statement(numbered.encode(), writes=not text.startswith(("SELECT", "WITH")))


@functools.cache
def name(text: bytes, types: tuple[int, ...]) -> bytes:
    """Return the name that a prepared statement has on every connection."""
    return hashlib.blake2b(text + repr(types).encode(), digest_size=12).hexdigest().encode()


def encode(values: Sequence[Any]) -> Values:
    """Return values as they are sent."""
    bodies: list[bytes | None] = []
    formats: list[int] = []
    for value in values:
        bodies.append(_encode(value))
        formats.append(1 if isinstance(value, bytes) else 0)
    return Values(tuple([_type(value) for value in values]), bodies, formats)


def decoder(type_id: int) -> Callable[[bytes], Any]:
    """Return how a column of a type is read."""
    return _DECODERS.get(type_id, bytes)


def _type(value: Any) -> int:
    """Return the type that a value is sent as, 0 where the server has to find it."""
    if value is None:
        return 0
    found = _TYPES.get(type(value))
    return found if found is not None else next(known for kind, known in _TYPES.items() if isinstance(value, kind))


def _encode(value: Any) -> bytes | None:
    match value:
        case None:
            return None
        case bytes():
            return value
        case str():
            return str.encode(value) if "\0" not in value else _without_nul(value)
        case bool():
            return b"1" if value else b"0"
        case list():
            return _encode_array(value)
        case _:
            return repr(value).encode()


def _without_nul(text: str) -> bytes:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode()


def _encode_array(texts: list[str]) -> bytes:
    quoted = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\N{REPLACEMENT CHARACTER}") for text in texts
    )
    return ("{" + ",".join(f'"{text}"' for text in quoted) + "}").encode(errors="replace")


def rows_of(
    columns: Sequence[Callable[[bytes], Any]], get: Callable[[int, int], bytes | None], count: int
) -> list[Row]:
    """Return the rows of a result in binary form."""
    numbered = list(enumerate(columns))
    rows: list[Row] = []
    for row in range(count):
        bodies = [(get(row, column), decode) for column, decode in numbered]
        rows.append(tuple([None if body is None else decode(body) for body, decode in bodies]))
    return rows
