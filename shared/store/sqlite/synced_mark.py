"""How far the write-ahead log was synced, kept beside it, so that damage of the log is told from its end.

SQLite takes the first frame whose checksum does not fit for the end of the log. After a loss of power that is right:
what was not synced may be torn. Where a bit has flipped it is not: the commits behind are dropped, and nobody is told.
So ``FILE-synced`` holds the header of the log, the number of its frames up to the last synced commit, and the checksum
of the page in the last of them. It is written behind that sync, so it never claims more than the disk has; where a loss
of power takes the mark itself back, it claims less. Before a log is begun anew, an empty mark is on the disk: a header
that is torn then is no damage.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

import apsw
import msgspec

from shared.errors import StoreUnusable
from shared.store.sqlite.write_ahead_log import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    PAGE_LIMIT_BYTES,
    page_bytes_of,
    place_of,
    read_header,
)

#: how long a look at the log, or a read, waits for another connection's lock, in milliseconds
BUSY_TIMEOUT_MS = 5000

MAGIC = b"GHSYNC1\n"
#: the magic, the log's header, the number of frames, the last one's page and its checksum, the checksum of all that
LAYOUT = struct.Struct(f">8s{HEADER_BYTES}sIIII")


class Synced(msgspec.Struct, frozen=True):
    """What a mark says: this log, up to this frame, is on the disk."""

    #: the header of the log, as it lay in the file
    header: bytes
    frames: int
    #: the number of the page in the last frame, and the checksum of that page
    page: int = 0
    page_checksum: int = 0


class SyncedMark:
    """The mark of a database that this process writes; all calls come from its writer's thread.

    A mark that cannot be written is an older one, which claims less: no error.
    """

    def __init__(self, database: Path) -> None:
        self._log_path = log_of(database)
        self._file = os.open(mark_of(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._log = -1

    def begin(self, frames: int) -> None:
        """Sync the log as an earlier process has left it, and mark its frames."""
        if frames > 0 and self._opened():
            with contextlib.suppress(OSError):
                os.fdatasync(self._log)
                self.put(frames)

    def put(self, frames: int) -> None:
        """Mark that the log is synced up to this frame."""
        if self._opened():
            with contextlib.suppress(OSError):
                header = os.pread(self._log, HEADER_BYTES, 0)
                size = page_bytes_of(header)
                if size > PAGE_LIMIT_BYTES:
                    return
                last = os.pread(self._log, FRAME_HEADER_BYTES + size, place_of(frames, size))
                page = int.from_bytes(last[:4], "big")
                self._write(Synced(header, frames, page, zlib.crc32(last[FRAME_HEADER_BYTES:])))

    def clear(self) -> None:
        """Mark nothing, and have that on the disk: the log may be begun anew."""
        with contextlib.suppress(OSError):
            self._write(Synced(bytes(HEADER_BYTES), 0))
            os.fdatasync(self._file)

    def close(self) -> None:
        """Close what is open; the mark stays as it is."""
        for descriptor in (self._file, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._log = -1

    def _opened(self) -> bool:
        if self._log < 0:
            with contextlib.suppress(OSError):
                self._log = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC)
        return self._log >= 0

    def _write(self, synced: Synced) -> None:
        told = LAYOUT.pack(MAGIC, synced.header, synced.frames, synced.page, synced.page_checksum, 0)[:-4]
        os.pwrite(self._file, told + struct.pack(">I", zlib.crc32(told)), 0)


def log_of(database: Path) -> Path:
    """Return where the write-ahead log of a database lies."""
    return database.with_name(database.name + "-wal")


def mark_of(database: Path) -> Path:
    """Return where the mark of a database lies."""
    return database.with_name(database.name + "-synced")


def read_mark(database: Path) -> Synced | None:
    """Return what the mark of a database says; None where it says nothing or cannot be read."""
    try:
        data = mark_of(database).read_bytes()
    except OSError:
        return None
    if len(data) != LAYOUT.size:
        return None
    magic, header, frames, page, page_checksum, checksum = LAYOUT.unpack(data)
    sound = magic == MAGIC and zlib.crc32(data[:-4]) == checksum
    return Synced(header, frames, page, page_checksum) if sound and frames else None


def holds_last_page(database: Path, mark: Synced) -> bool:
    """Tell whether the page of the last synced frame was copied back into the database."""
    size = page_bytes_of(mark.header)
    with database.open("rb") as file:
        file.seek((mark.page - 1) * size)
        return zlib.crc32(file.read(size)) == mark.page_checksum


def connect_unchanged(path: Path, url: str, flags: int) -> apsw.Connection:
    """Open a database whose log is sound. Raises StoreUnusable where it is not, with the log as it was; apsw.Error.

    Who closes the last connection of a database copies its log back and deletes it. This one does so only once the
    log was found to be sound.
    """
    db = apsw.Connection(url, flags=flags)
    try:
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        check_log(db, path)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except BaseException:
        db.close()
        raise
    return db


def check_log(db: apsw.Connection, path: Path) -> None:
    """Raise StoreUnusable where the log lacks what was synced. Another process may be writing it meanwhile."""
    mark = read_mark(path)
    if mark is None:
        return
    if not (before := _header_bytes(path)):
        _check_copied_back(path, mark)
        return
    db.pragma("user_version")  # the log is opened by the first read
    frames, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    after = read_mark(path)
    if before != _header_bytes(path) or after is None or after.header != mark.header:
        return  # it was copied back meanwhile, and may have been begun anew
    if before == mark.header:
        if frames < mark.frames:
            raise _damaged(path, f"it can be read up to frame {max(0, frames)} of {mark.frames} that were synced")
    elif read_header(before) is None:
        raise _damaged(path, f"its header cannot be read, and {mark.frames} frames of it were synced")


def _check_copied_back(path: Path, mark: Synced) -> None:
    """Raise StoreUnusable where the log is not there and was not copied back into the database either.

    Another program that was the last to close the database has copied it back, and may have written more: then the
    file is newer than the mark.
    """
    if holds_last_page(path, mark) or path.stat().st_mtime_ns > mark_of(path).stat().st_mtime_ns:
        return
    if read_mark(path) == mark:  # nobody writes it meanwhile
        theirs = f"; if this is another copy, put here without its log, remove {mark_of(path).name}"
        raise _damaged(path, f"it is not there, and {mark.frames} frames of it were synced", theirs)


def _header_bytes(path: Path) -> bytes:
    try:
        with log_of(path).open("rb") as log:
            return log.read(HEADER_BYTES)
    except OSError:
        return b""


def _damaged(path: Path, problem: str, otherwise: str = "") -> StoreUnusable:
    return StoreUnusable(
        f"{path} is damaged: of its write-ahead log {log_of(path).name} commits would be lost, for {problem}; nothing "
        f"was changed. `salvage` reads what can be read of it, `restore` puts a backup in its place{otherwise}"
    )
