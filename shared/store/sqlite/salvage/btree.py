"""SQLite's file format, read page by page, so that what is damaged costs nobody but itself.

SQLite gives up at the first page that is not as it should be. This reads a tree as far as it goes, tells each page and
cell that it cannot read, and reads a lone page too, whose way from the root is lost. The format:
https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

MAGIC = b"SQLite format 3\x00"
HEADER_BYTES = 100
DEFAULT_PAGE_BYTES = 4096
#: a record of more is none: SQLite's own limit is lower
PAYLOAD_LIMIT_BYTES = 1_000_000_000
INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 5, 10, 13
#: bytes of the integers that a record has, by their serial type
INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Value = None | int | float | str | bytes


class DamagedPage(Exception):
    """Raised when a page or a cell is not what the format says; the text says how."""


class StoredRow(msgspec.Struct, frozen=True):
    """One record as it lies in a tree; ``rowid`` is None in an index and in a table WITHOUT ROWID."""

    page: int
    rowid: int | None
    values: tuple[Value, ...]


class Damage(msgspec.Struct, frozen=True):
    """A page, or a cell of it, that cannot be read."""

    page: int
    problem: str


class PageFile:
    """The pages of a database file, numbered from 1; ``seen`` has a 1 for each that a tree was found to hold."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        size = path.stat().st_size
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        header = bytes(self._map[:HEADER_BYTES])
        self.has_header = header.startswith(MAGIC)
        stored = struct.unpack(">H", header[16:18])[0] if self.has_header else DEFAULT_PAGE_BYTES
        self.page_bytes = 65_536 if stored == 1 else stored
        if self.page_bytes < 512 or self.page_bytes & (self.page_bytes - 1):
            self.has_header, self.page_bytes = False, DEFAULT_PAGE_BYTES
        self.usable = self.page_bytes - (header[20] if self.has_header else 0)
        self.count = -(-size // self.page_bytes)
        self.seen = bytearray(self.count + 1)
        self.user_version = struct.unpack(">I", header[60:64])[0] if self.has_header else 0

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._map, mmap.mmap):
            self._map.close()
        self._file.close()

    def page(self, number: int) -> bytes:
        """Return a page. Raises DamagedPage where the file has none of this number."""
        found = self._map[(number - 1) * self.page_bytes : number * self.page_bytes] if number >= 1 else b""
        if len(found) < self.page_bytes:
            raise DamagedPage(f"the file has no whole page {number}")
        return found

    def free_pages(self) -> set[int]:
        """Return the pages that hold nothing any more, as far as their list can be read."""
        free: set[int] = set()
        trunk = struct.unpack(">I", self._map[32:36])[0] if self.has_header else 0
        while trunk and trunk not in free:
            try:
                page = self.page(trunk)
            except DamagedPage:
                break
            free.add(trunk)
            trunk, count = struct.unpack(">II", page[:8])
            free.update(struct.unpack(f">{count}I", page[8 : 8 + 4 * count]) if count <= self.usable // 4 - 2 else ())
        return free

    def tree(self, root: int, *, has_rowid: bool) -> Iterator[StoredRow | Damage]:
        """Yield every record below a root page in no promised order, and every damage on the way.

        A tree with rowids is an ordinary table's; one without is an index's, or that of a table WITHOUT ROWID.
        """
        kinds = (TABLE_INTERIOR, TABLE_LEAF) if has_rowid else (INDEX_INTERIOR, INDEX_LEAF)
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if 1 <= number <= self.count and self.seen[number]:
                yield Damage(number, "two places lead to this page")
                continue
            try:
                kind = self._kind(number)
                if kind not in kinds:
                    raise DamagedPage(f"page type {kind} where {kinds} are expected")
            except DamagedPage as error:
                yield Damage(number, str(error))
                continue
            self.seen[number] = 1
            waiting += self._children(number)
            yield from self.rows(number)

    def rows(self, number: int) -> Iterator[StoredRow | Damage]:
        """Yield the records that lie in one page, and every damage in it."""
        try:
            kind = self._kind(number)
            if kind == TABLE_INTERIOR:
                return
            page = self.page(number)
            places = self._cells(number, page, kind)
        except DamagedPage as error:
            yield Damage(number, str(error))
            return
        for place in places:
            try:
                yield self._row(number, page, kind, place)
            except (DamagedPage, IndexError, struct.error, UnicodeDecodeError, OverflowError) as error:
                yield Damage(number, f"a cell cannot be read: {error}")

    def is_leaf(self, number: int) -> bool:
        """Tell whether a page looks like one that holds a table's rows."""
        try:
            return self._kind(number) in {TABLE_LEAF, INDEX_LEAF}
        except DamagedPage:
            return False

    def _kind(self, number: int) -> int:
        kind = self.page(number)[HEADER_BYTES if number == 1 else 0]
        if kind not in {INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF}:
            raise DamagedPage(f"page type {kind} is none")
        return kind

    def _cells(self, number: int, page: bytes, kind: int) -> list[int]:
        head = HEADER_BYTES if number == 1 else 0
        count = struct.unpack(">H", page[head + 3 : head + 5])[0]
        first = head + (12 if kind in {INDEX_INTERIOR, TABLE_INTERIOR} else 8)
        if first + 2 * count > self.usable:
            raise DamagedPage(f"{count} cells do not fit into a page")
        return list(struct.unpack(f">{count}H", page[first : first + 2 * count]))

    def _children(self, number: int) -> list[int]:
        """Return the pages below an interior page, none of a leaf; what is no page's number fails when it is read."""
        page = self.page(number)
        head = HEADER_BYTES if number == 1 else 0
        if page[head] in {INDEX_LEAF, TABLE_LEAF}:
            return []
        try:
            places = self._cells(number, page, page[head])
        except DamagedPage:
            return []
        found = [struct.unpack(">I", page[place : place + 4])[0] for place in places if place + 4 <= len(page)]
        return [*found, struct.unpack(">I", page[head + 8 : head + 12])[0]]

    def _row(self, number: int, page: bytes, kind: int, place: int) -> StoredRow:
        if kind == INDEX_INTERIOR:
            place += 4
        size, place = _varint(page, place)
        rowid = None
        if kind == TABLE_LEAF:
            rowid, place = _varint(page, place)
            rowid = rowid - (1 << 64) if rowid >= 1 << 63 else rowid
        return StoredRow(number, rowid, _record(self._payload(page, place, size, in_table=kind == TABLE_LEAF)))

    def _payload(self, page: bytes, place: int, size: int, *, in_table: bool) -> bytes:
        """Return a record's bytes, those on overflow pages too."""
        if size > min(PAYLOAD_LIMIT_BYTES, self.count * self.page_bytes):
            raise DamagedPage(f"a record of {size} bytes is longer than the file")
        most = self.usable - 35 if in_table else (self.usable - 12) * 64 // 255 - 23
        least = (self.usable - 12) * 32 // 255 - 23
        local = size
        if size > most:
            local = least + (size - least) % (self.usable - 4)
            local = local if local <= most else least
        found = bytearray(page[place : place + local])
        following = struct.unpack(">I", page[place + local : place + local + 4])[0] if local < size else 0
        while len(found) < size:
            part = self.page(following)
            following = struct.unpack(">I", part[:4])[0]
            found += part[4 : min(self.usable, 4 + size - len(found))]
        if len(found) != size or following:
            raise DamagedPage("a record runs out of its page, or its overflow pages go on behind its end")
        return bytes(found)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of 1 to 9 bytes, and the place behind it."""
    value = 0
    for _ in range(8):
        byte = data[place]
        place += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place
    return value << 8 | data[place], place + 1


def _record(payload: bytes) -> tuple[Value, ...]:
    head_bytes, place = _varint(payload, 0)
    if not 1 <= head_bytes <= len(payload):
        raise DamagedPage("a record's head is longer than the record")
    types = []
    while place < head_bytes:
        kind, place = _varint(payload, place)
        types.append(kind)
    values: list[Value] = []
    place = head_bytes
    for kind in types:
        value, place = _value(payload, kind, place)
        values.append(value)
    if place != len(payload):
        raise DamagedPage("a record is not as long as its head says")
    return tuple(values)


def _value(payload: bytes, kind: int, place: int) -> tuple[Value, int]:
    size = INTEGER_BYTES.get(kind, 8 if kind == 7 else max(0, kind - 12) // 2)
    part = payload[place : place + size]
    if len(part) < size or kind in {10, 11}:
        raise DamagedPage(f"a value of serial type {kind} runs out of its record")
    if kind in INTEGER_BYTES:
        return int.from_bytes(part, "big", signed=True), place + size
    if kind == 7:
        return struct.unpack(">d", part)[0], place + size
    if kind < 12:
        return {0: None, 8: 0, 9: 1}[kind], place
    return (part.decode() if kind % 2 else part), place + size
