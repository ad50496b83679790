"""The format of SQLite's write-ahead log, as far as its damage is told from its end.

    header of 32 bytes │ frame: 24 bytes, then a page │ frame │ …

Each frame carries a checksum of itself and of all before it, so SQLite reads up to the first one that does not fit
and takes that for the end (https://www.sqlite.org/fileformat2.html#the_write_ahead_log).
"""

from __future__ import annotations

import struct

import msgspec

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
PAGE_LIMIT_BYTES = 65_536
#: the first word of a header; in the second kind the checksums are of big-endian words
MAGIC = {0x377F0682: "<", 0x377F0683: ">"}

#: a running checksum: two words of 32 bits
Checksum = tuple[int, int]


class LogHeader(msgspec.Struct, frozen=True):
    """What the header of a log says."""

    page_bytes: int
    #: the two numbers that every frame of this generation of the log repeats
    salts: bytes
    #: how the words of a checksum lie: ``<`` or ``>``
    order: str
    #: where the checksums of the frames begin
    checksum: Checksum


class LogFrame(msgspec.Struct, frozen=True):
    """One frame as it lies in the file."""

    page: int
    #: pages of the database after the commit that this frame ends, 0 where it ends none
    commit_pages: int
    salts: bytes
    #: its checksum, as stored
    checksum: Checksum
    #: what the checksum is of, beside the frames before
    summed: bytes


def page_bytes_of(header: bytes) -> int:
    """Return the size of a page that a header names, without a look at its checksum."""
    return int.from_bytes(header[8:12], "big")


def place_of(frame: int, page_bytes: int) -> int:
    """Return where in the file a frame begins; they are numbered from 1."""
    return HEADER_BYTES + (frame - 1) * (FRAME_HEADER_BYTES + page_bytes)


def read_header(data: bytes) -> LogHeader | None:
    """Return what a header says, None where it is none or its own checksum does not fit."""
    if len(data) < HEADER_BYTES:
        return None
    magic, _version, page_bytes, _sequence, _salt, _salt, first, second = struct.unpack(">8I", data[:HEADER_BYTES])
    order = MAGIC.get(magic)
    if order is None or checksum_of(data[:24], (0, 0), order) != (first, second):
        return None
    if not 512 <= page_bytes <= PAGE_LIMIT_BYTES or page_bytes & (page_bytes - 1):
        return None
    return LogHeader(page_bytes, data[16:24], order, (first, second))


def read_frame(data: bytes) -> LogFrame:
    """Return a frame from its bytes, header and page."""
    page, commit_pages = struct.unpack(">II", data[:8])
    first, second = struct.unpack(">II", data[16:24])
    return LogFrame(page, commit_pages, data[8:16], (first, second), data[:8] + data[FRAME_HEADER_BYTES:])


def checksum_of(data: bytes, begun: Checksum, order: str) -> Checksum:
    """Return the checksum that goes on from another one over these bytes, a multiple of eight."""
    first, second = begun
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
