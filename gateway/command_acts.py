"""What commands did, on its way into the audit trail: a file of the data directory, which the gateway takes in.

    command ── line ──▶ acts.jsonl ── gateway, or the command where none runs ──▶ row, log line, count

A command cannot write the database that a gateway has open, and the one that is there may be damaged, old or not made
yet. The file outlives all that; it goes once every line of it is a row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shared.store.port import Store
from shared.traces import AuditEntry

ACTS_FILE, TAKEN_FILE = "acts.jsonl", "acts.taken"
#: who did it, where it was no key's holder
ACTOR = "command"


def act_of(action: str, target: str) -> AuditEntry:
    """Return the row of what a command does now; whose command it is is the origin."""
    return AuditEntry(time.time(), action, ACTOR, target, f"uid {os.getuid()}")


def leave_act(data_dir: Path, action: str, target: str) -> None:
    """Write down what a command has done, and whose it was. Raises OSError."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(data_dir / ACTS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(act_of(action, target)) + b"\n")
    finally:
        os.close(descriptor)


class CommandActs:
    """Takes what commands have left in a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._left = data_dir / ACTS_FILE
        self._taken = data_dir / TAKEN_FILE
        #: how many entries of the taken file are rows already
        self._kept = 0

    @property
    def waiting(self) -> bool:
        """Whether there are any."""
        return self._left.exists() or self._taken.exists()

    async def take(self, store: Store) -> list[AuditEntry]:
        """Make rows of all of them and return those. Raises StoreError and OSError; the next call goes on there."""
        entries: list[AuditEntry] = []
        while self.waiting:
            if not self._taken.exists():
                self._left.rename(self._taken)
            for entry in list(_entries(self._taken))[self._kept :]:
                await store.audit.add(entry)
                self._kept += 1
                entries.append(entry)
            self._taken.unlink()
            self._kept = 0
        return entries


def _entries(path: Path) -> Iterator[AuditEntry]:
    """Yield what the lines of a file say; one that a kill has cut off says nothing."""
    for line in path.read_bytes().splitlines():
        try:
            yield msgspec.json.decode(line, type=AuditEntry)
        except msgspec.DecodeError:
            continue
