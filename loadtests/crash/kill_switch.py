"""The kill switch: whoever reaches the armed boundary for the n-th time kills the victims on the spot.

A kill is armed by a file and goes off once: whoever removes the file does it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from loadtests.crash.notes import Note, Notebook
from loadtests.crash.plan import Boundary, Kill, Side, Victim
from loadtests.gateway_process import descendants, parent_of

ARMED = "kill.json"


class Armed(msgspec.Struct, frozen=True):
    """A kill that waits for its moment; ``life`` is the gateway's process id."""

    round: int
    life: int
    kill: Kill


class KillSwitch:
    """Kills once when its moment comes; ``worker_of`` names the worker process to kill, 0 if there is none now."""

    def __init__(self, path: Path, notebook: Notebook, worker_of: Callable[[str], int]) -> None:
        self._path = path
        self._notebook = notebook
        self._worker_of = worker_of
        self._round = -1
        self._reached = 0

    def reached(self, boundary: Boundary, side: Side, session: str = "", label: str = "") -> None:
        """Kill the victims if this is the moment; ``session`` is whose turn it is about."""
        armed = read_armed(self._path)
        if armed is None or (armed.kill.boundary, armed.kill.side) != (boundary, side):
            return
        if armed.round != self._round:
            self._round, self._reached = armed.round, 0
        self._reached += armed.kill.label in {"", label}
        if self._reached < armed.kill.nth:
            return
        if victims := self._victims(armed, session):
            fire(self._path, self._notebook, armed, victims)

    def _victims(self, armed: Armed, session: str) -> list[int]:
        if armed.kill.victim.ends_gateway:
            return victims_above(armed)
        worker = self._worker_of(session)
        return victims_below(armed, worker) if worker else []


def victims_above(armed: Armed) -> list[int]:
    """Return the gateway, and where everybody is to die, all processes below it."""
    return [armed.life] if armed.kill.victim is Victim.GATEWAY else [armed.life, *descendants(armed.life)]


def victims_below(armed: Armed, worker: int) -> list[int]:
    """Return a worker, or the fork server it came from."""
    victim = worker if armed.kill.victim is Victim.WORKER else parent_of(worker)
    return [victim] if victim else []


def arm(path: Path, armed: Armed) -> None:
    """Let a kill wait for its moment."""
    drawn = path.with_suffix(".new")
    drawn.write_bytes(msgspec.json.encode(armed))
    drawn.replace(path)


def read_armed(path: Path) -> Armed | None:
    """Return the kill that waits, None if none does."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Armed)
    except FileNotFoundError:
        return None


def disarm(path: Path) -> bool:
    """Take the kill away; False if somebody else did."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def fire(path: Path, notebook: Notebook, armed: Armed, victims: Iterable[int]) -> None:
    """Note the kill and do it, this process last if it is among the victims; once only."""
    if disarm(path):
        kill = armed.kill
        notebook.write(Note(armed.life, kill.boundary, kill.side, killed=kill))
        for pid in sorted(victims, key=lambda pid: pid == os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
