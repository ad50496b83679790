"""A disk that fails on demand: SQLite's own file layer, which raises the fault that is set when it writes or syncs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

SYSTEM = "unix"


class FaultyDisk(apsw.VFS):
    """The default file layer while it is registered; ``on_write`` and ``on_sync`` are raised where they are set."""

    def __init__(self) -> None:
        super().__init__("faulty", SYSTEM, makedefault=True)
        self.on_write: apsw.Error | None = None
        self.on_sync: apsw.Error | None = None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        """Open a file on this disk."""
        return _FaultyFile(self, name, flags)

    def mend(self) -> None:
        """Work again."""
        self.on_write = self.on_sync = None


class _FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(SYSTEM, name, flags)
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.on_write:
            raise self._disk.on_write
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.on_sync:
            raise self._disk.on_sync
        super().xSync(flags)


@contextmanager
def faulty_disk() -> Iterator[FaultyDisk]:
    """Put every database that is opened meanwhile on a faulty disk."""
    disk = FaultyDisk()
    try:
        yield disk
    finally:
        disk.unregister()
