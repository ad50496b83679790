"""Puts the pages of a write-ahead log into a copy of its database, past what is damaged in the log.

Of each page the newest frame counts. Up to the mark every frame was synced, so one whose checksum does not fit is
damage, and the frames behind it are read too: each is summed from what the one before has stored. Behind the mark the
log ends where SQLite would end it.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import msgspec

from shared.store.sqlite.salvage.btree import MAGIC, Damage, PageFile
from shared.store.sqlite.synced_mark import Synced, holds_last_page
from shared.store.sqlite.write_ahead_log import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    LogHeader,
    checksum_of,
    place_of,
    read_frame,
    read_header,
)


class FoldedLog(msgspec.Struct):
    """What became of a log."""

    #: what is to be said of it, in words
    notes: list[str] = []
    #: pages whose newest content is that of a frame whose checksum does not fit
    unsure_pages: set[int] = set()


class _Frame(msgspec.Struct):
    number: int
    page: int
    ends_commit: bool
    #: whether it is as it was written
    sound: bool


class _Log(msgspec.Struct):
    """The frames of a log up to its end, and how many others of the same generation follow there."""

    frames: list[_Frame] = []
    commits_behind: int = 0


def fold_log(copy: Path, log: Path, mark: Synced | None) -> FoldedLog:
    """Write the pages of a log into a copy of its database."""
    folded = FoldedLog()
    if not log.exists() or not log.stat().st_size:
        if mark and not holds_last_page(copy, mark):
            folded.notes.append(f"the write-ahead log {log} is not there, and {mark.frames} frames of it were synced")
        return folded
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        own = read_header(data[:HEADER_BYTES])
        header = own or (read_header(mark.header) if mark else None)
        if header is None:
            folded.notes.append(f"the header of the write-ahead log {log} cannot be read: what it alone has is lost")
            return folded
        if own is None:
            folded.notes.append("the header of the write-ahead log is damaged: the one of the mark was taken")
        marked = mark.frames if mark and mark.header[16:24] == header.salts else 0
        found = _read(data, header, marked)
        if len(found.frames) < marked:
            folded.notes.append(
                f"the write-ahead log ends with frame {len(found.frames)}, and {marked} were synced: what was "
                "committed with the others is lost"
            )
        if found.commits_behind and not marked:
            folded.notes.append(
                f"the write-ahead log breaks off behind frame {len(found.frames)}; {found.commits_behind} commits "
                "follow there, and nothing tells whether they were synced: they are left out"
            )
        _write(copy, data, header.page_bytes, found.frames, folded)
    return folded


def _read(data: mmap.mmap, header: LogHeader, marked: int) -> _Log:
    """Read the frames that were synced, and those behind them as far as each fits to the one before."""
    log = _Log()
    stored = computed = header.checksum
    ended = False
    while place_of(len(log.frames) + 2, header.page_bytes) <= len(data):
        number = len(log.frames) + 1
        place = place_of(number, header.page_bytes)
        frame = read_frame(data[place : place_of(number + 1, header.page_bytes)])
        before, computed_before = stored, computed
        stored, computed = frame.checksum, checksum_of(frame.summed, before, header.order)
        sound = computed == stored
        if not sound and computed_before != before:
            computed = checksum_of(frame.summed, computed_before, header.order)
            sound = computed == stored
            if sound:  # of the one before the checksum alone is damaged
                log.frames[-1].sound = True
        if number > marked and not (sound and frame.salts == header.salts):
            ended = True
            break
        log.frames.append(_Frame(number, frame.page, bool(frame.commit_pages), sound))
    if ended:
        log.commits_behind = _commits_behind(data, header, len(log.frames) + 1, stored)
    while len(log.frames) > marked and not log.frames[-1].ends_commit:
        log.frames.pop()
    return log


def _commits_behind(data: mmap.mmap, header: LogHeader, hole: int, stored: tuple[int, int]) -> int:
    """Count the commits behind a frame that does not fit: frames of this log that fit to the one before them."""
    commits = 0
    number = hole + 1
    while place_of(number + 1, header.page_bytes) <= len(data):
        place = place_of(number, header.page_bytes)
        frame = read_frame(data[place : place_of(number + 1, header.page_bytes)])
        if frame.salts != header.salts or checksum_of(frame.summed, stored, header.order) != frame.checksum:
            break
        commits += bool(frame.commit_pages)
        stored, number = frame.checksum, number + 1
    return commits


def _write(copy: Path, data: mmap.mmap, page_bytes: int, frames: list[_Frame], folded: FoldedLog) -> None:
    """Write the newest content of each page; what was there before goes to the end where the newest is unreadable."""
    there = -(-copy.stat().st_size // page_bytes)
    most = max([there, *(frame.page for frame in frames if frame.sound)])
    newest: dict[int, _Frame] = {}
    before: dict[int, _Frame] = {}
    for frame in frames:
        if 1 <= frame.page <= most + len(frames):
            if frame.page in newest and newest[frame.page].sound:
                before[frame.page] = newest[frame.page]
            newest[frame.page] = frame
        else:
            folded.notes.append(f"frame {frame.number} of the write-ahead log is damaged: nobody knows its page")

    def body(frame: _Frame) -> bytes:
        place = place_of(frame.number, page_bytes) + FRAME_HEADER_BYTES
        return data[place : place + page_bytes]

    stale: dict[int, bytes] = {}
    with copy.open("r+b") as file:
        for page, frame in sorted(newest.items()):
            file.seek((page - 1) * page_bytes)
            if not frame.sound:
                stale[page] = body(before[page]) if page in before else file.read(page_bytes)
                file.seek((page - 1) * page_bytes)
            file.write(body(frame))
    folded.unsure_pages = set(stale)
    for frame in frames:
        if not frame.sound and frame.page in newest:
            newer = newest[frame.page] is not frame
            end = "a later frame has that page" if newer else "what it holds was read as it is, and may be wrong"
            folded.notes.append(f"frame {frame.number} of the write-ahead log, page {frame.page}, is damaged: {end}")
    _append_unreadable(copy, stale)


def _append_unreadable(copy: Path, stale: dict[int, bytes]) -> None:
    """Put what pages held before behind the others, where nothing leads to it, if what they hold now is no page."""
    if not stale:
        return
    pages = PageFile(copy)
    try:
        lost = [page for page in sorted(stale) if any(isinstance(row, Damage) for row in pages.rows(page))]
    finally:
        pages.close()
    with copy.open("ab") as file:
        for page in lost:
            file.write(stale[page])
    if 1 in lost and not copy.read_bytes().startswith(MAGIC):
        with copy.open("r+b") as file:
            file.write(stale[1][:100])
