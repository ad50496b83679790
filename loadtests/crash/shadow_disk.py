"""What is left of a database when the power goes: a shadow that has what was synced, and nothing else.

A VFS of SQLite that passes everything on (https://www.sqlite.org/vfs.html) and keeps what was written since a file's
last sync apart. A sync brings the shadow of that file up to date. After a kill the shadows take the files' places:
the kernel, which outlives a killed process and would still write its pages, is left out that way.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import apsw
import msgspec

SHADOW = "shadow"
#: the files of a database, by what their names end with
FILES = ("", "-wal", "-journal")


class Change(msgspec.Struct, frozen=True):
    """A write at an offset, or a cut of the file to this size where there are no bytes."""

    offset: int
    body: bytes | None


class ShadowFile:
    """The shadow of one file; ``changes`` are those that no sync has followed yet."""

    def __init__(self, path: Path, shadow: Path) -> None:
        self._path = path
        self._shadow = shadow
        # an earlier process may have written more than it has synced, and a sync is of all there is
        self._known = False
        self.changes: list[Change] = []

    def synced(self) -> None:
        """Bring it up to date."""
        changes, self.changes = self.changes, []
        if not self._known or not self._shadow.exists():
            drawn = self._shadow.with_name(self._shadow.name + ".new")
            shutil.copyfile(self._path, drawn)
            drawn.replace(self._shadow)
            self._known = True
            return
        with self._shadow.open("r+b") as file:
            for change in changes:
                if change.body is None:
                    file.truncate(change.offset)
                else:
                    file.seek(change.offset)
                    file.write(change.body)

    def deleted(self) -> None:
        """Remove it with its file."""
        self.changes = []
        self._shadow.unlink(missing_ok=True)


class ShadowDisk(apsw.VFS):
    """The VFS; the default one of this process for as long as it is held, for databases in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shadows = directory / SHADOW
        self._shadows.mkdir(exist_ok=True)
        self._files: dict[Path, ShadowFile] = {}
        self._lock = threading.Lock()
        super().__init__("shadow", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's
        """Open a file, watched if it is one of a database here."""
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        if path.parent != self._directory:
            return apsw.VFSFile("unix", name, flags)
        return WatchedFile(name, flags, self._file(path), self._lock)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's
        """Delete a file with its shadow."""
        super().xDelete(filename, syncdir)
        path = Path(filename)
        if path.parent == self._directory:
            with self._lock:
                self._file(path).deleted()

    def _file(self, path: Path) -> ShadowFile:
        return self._files.setdefault(path, ShadowFile(path, self._shadows / path.name))


class WatchedFile(apsw.VFSFile):
    """An open file whose writes and syncs its shadow is told of."""

    def __init__(
        self, name: str | apsw.URIFilename | None, flags: list[int], shadow: ShadowFile, lock: threading.Lock
    ) -> None:
        self._shadow = shadow
        self._lock = lock
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's
        """Write, and remember it."""
        super().xWrite(data, offset)
        with self._lock:
            self._shadow.changes.append(Change(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's
        """Cut, and remember it."""
        super().xTruncate(newsize)
        with self._lock:
            self._shadow.changes.append(Change(newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's
        """Sync, and the shadow with it."""
        super().xSync(flags)
        with self._lock:
            self._shadow.synced()


def take_as_synced(database: Path) -> None:
    """Take a database that no process has open for what the disk has; it has no log beside it."""
    shadow = database.parent / SHADOW / database.name
    for ending in FILES:
        shadow.with_name(shadow.name + ending).unlink(missing_ok=True)
    shutil.copyfile(database, shadow)


def lose_power(database: Path) -> None:
    """Put the shadows in the places of a database's files; no process has it open."""
    database.with_name(database.name + "-shm").unlink(missing_ok=True)
    for ending in FILES:
        path = database.with_name(database.name + ending)
        shadow = database.parent / SHADOW / path.name
        if shadow.exists() or not ending:  # a database without a shadow was not watched
            shutil.copyfile(shadow, path)
        else:
            path.unlink(missing_ok=True)
