"""A disk that is recorded, and what a loss of power at any moment may leave of it.

SQLite's own file layer, with every write, cut and sync written down. What was synced is there afterwards; of what was
not, each write is there, is not, or is torn, whatever came before or after it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from shared.store.sqlite.synced_mark import LAYOUT, mark_of

SYSTEM = "unix"


class Step(msgspec.Struct, frozen=True):
    """One call of the file layer; one without bytes and size is a sync."""

    file: str
    offset: int = 0
    body: bytes | None = None
    #: what a file is cut to
    size: int | None = None


class RecordedDisk(apsw.VFS):
    """The default file layer while it is registered."""

    def __init__(self, database: Path) -> None:
        super().__init__("recorded", SYSTEM, makedefault=True)
        self._mark = mark_of(database)
        self._names = {database.name, f"{database.name}-wal"}
        self.steps: list[Step] = []
        #: the mark as it was before each step
        self.marks: list[bytes] = []
        #: how many steps there were when each of these was acknowledged
        self.acknowledged: dict[str, int] = {}

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        """Open a file, recorded if it is the database or its log."""
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        if path.name not in self._names:
            return apsw.VFSFile(SYSTEM, name, flags)
        return _RecordedFile(self, path.name, name, flags)

    def add(self, step: Step) -> None:
        """Write a step down."""
        self.marks.append(self._mark.read_bytes() if self._mark.exists() else b"")
        self.steps.append(step)

    def acknowledge(self, name: str) -> None:
        """Write down that somebody was told of this."""
        self.acknowledged[name] = len(self.steps)

    def lose_power(self, after: int, chance: random.Random, directory: Path) -> None:
        """Write what is left when the power goes behind so many steps."""
        synced: dict[str, bytearray] = {name: bytearray() for name in self._names}
        pending: dict[str, list[Step]] = {name: [] for name in self._names}
        for step in self.steps[:after]:
            if step.body is not None or step.size is not None:
                pending[step.file].append(step)
                continue
            for kept in pending[step.file]:
                _apply(kept, synced[step.file])
            pending[step.file] = []
        directory.mkdir(parents=True)
        for name, image in synced.items():
            for step in pending[name]:
                if torn := _torn(step, chance):
                    _apply(torn, image)
            if image:
                (directory / name).write_bytes(image)
        versions = self.marks[: after + 1]
        # an empty mark is synced before the log is begun anew, so none that is older comes back
        since = max((number for number, mark in enumerate(versions) if _is_empty(mark)), default=0)
        (directory / self._mark.name).write_bytes(chance.choice(versions[since:]))


class _RecordedFile(apsw.VFSFile):
    def __init__(self, disk: RecordedDisk, file: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(SYSTEM, name, flags)
        self._disk = disk
        self._file = file

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.add(Step(self._file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.add(Step(self._file, size=newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        super().xSync(flags)
        self._disk.add(Step(self._file))


def _is_empty(mark: bytes) -> bool:
    return len(mark) < LAYOUT.size or LAYOUT.unpack(mark)[2] == 0


def _apply(step: Step, image: bytearray) -> None:
    if step.size is not None:
        del image[step.size :]
    elif step.body is not None:
        image.extend(bytes(max(0, step.offset - len(image))))
        image[step.offset : step.offset + len(step.body)] = step.body


def _torn(step: Step, chance: random.Random) -> Step | None:
    """Return what is left of a write that was not synced."""
    fate = chance.random()
    if step.body is None or fate < 0.4:
        return step if fate < 0.7 else None
    if fate < 0.7:
        return None
    begin, end = sorted(chance.randrange(len(step.body) + 1) for _ in range(2))
    garbled = chance.choice((b"\x00" * (end - begin), chance.randbytes(end - begin)))
    return Step(step.file, step.offset, step.body[:begin] + garbled + step.body[end:])


@contextmanager
def recorded_disk(database: Path) -> Iterator[RecordedDisk]:
    """Put every database that is opened meanwhile on a recorded disk."""
    disk = RecordedDisk(database)
    try:
        yield disk
    finally:
        disk.unregister()
