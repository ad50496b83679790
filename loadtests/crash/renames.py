"""Files that take another name are boundaries too: what is behind a rename is there whole, or not at all.

Python tells of every rename before it makes it (https://docs.python.org/3/library/audit_events.html), and of whatever
the same thread does next.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from loadtests.crash.kill_switch import ARMED, KillSwitch
from loadtests.crash.notes import NOTES, Note, Notebook
from loadtests.crash.plan import Boundary, Side

BACKUPS = "backups"
LOGS = "logs"


class Renamed(NamedTuple):
    """A rename: the boundary that it is, and the directory of the run."""

    boundary: Boundary
    directory: Path


class RenameWatch:
    """Notes the renames in this process for good, and gives the switch its chance on either side of each."""

    def __init__(self, worker_of: Callable[[str], int], life: int = 0) -> None:
        self._worker_of = worker_of
        self._life = life
        self._own = threading.local()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if getattr(self._own, "hearing", False):
            return
        self._own.hearing = True
        try:
            before: Renamed | None = getattr(self._own, "renamed", None)
            if before is not None:
                self._own.renamed = None
                self._reached(before, Side.AFTER)
            if event == "os.rename" and (renamed := renamed_to(Path(str(given[1])))) is not None:
                self._reached(renamed, Side.BEFORE)
                self._own.renamed = renamed
        finally:
            self._own.hearing = False

    def _reached(self, renamed: Renamed, side: Side) -> None:
        armed = renamed.directory / ARMED
        if armed.exists():
            notebook = Notebook(renamed.directory / NOTES)
            notebook.write(Note(self._life, renamed.boundary, side))
            KillSwitch(armed, notebook, self._worker_of).reached(renamed.boundary, side)


def renamed_to(target: Path) -> Renamed | None:
    """Return what a file is that takes this name; None for one that is no boundary."""
    if target.parent.name == BACKUPS:
        return Renamed(Boundary.BACKUP, target.parent.parent)
    if target.parent.parent.name == LOGS:
        return Renamed(Boundary.ROTATION, target.parent.parent.parent)
    return None
