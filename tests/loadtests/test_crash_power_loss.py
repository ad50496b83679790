"""The shadow of the crash proof has what was synced and nothing else: with it the proof can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from loadtests.crash.shadow_disk import lose_power
from loadtests.gateway_process import ROOT

#: writes rows, some of them before a sync of its own file, and dies without closing anything
WRITER = """
import os, sys, apsw
from pathlib import Path
from loadtests.crash.shadow_disk import ShadowDisk
disk = ShadowDisk(Path(sys.argv[1]))
db = apsw.Connection(sys.argv[1] + "/gatehouse.db")
db.pragma("journal_mode", "wal")
db.pragma("synchronous", sys.argv[2])
db.execute("CREATE TABLE IF NOT EXISTS rows (n)")
db.pragma("wal_checkpoint")
for n in range(int(sys.argv[3])):
    db.execute("INSERT INTO rows VALUES (?)", (n,))
os._exit(0)
"""


def rows_after(directory: Path, synchronous: str, rows: int, *, power_lost: bool = True) -> int:
    """Count the rows that are left when a writer has died, and the power has gone with it."""
    command = [sys.executable, "-c", WRITER, str(directory), synchronous, str(rows)]
    subprocess.run(command, check=True, cwd=ROOT)
    path = directory / "gatehouse.db"
    if power_lost:
        lose_power(path)
    copy = directory / "copy"  # whoever opened the files themselves would write to them unwatched
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in directory.glob("gatehouse.db*"):
        shutil.copy(file, copy)
    db = apsw.Connection(str(copy / path.name))
    try:
        assert db.pragma("integrity_check") == "ok"
        return int(db.execute("SELECT count(*) FROM rows").get)
    finally:
        db.close()


def test_what_was_committed_with_a_sync_is_there_after_a_power_loss(tmp_path: Path) -> None:
    assert rows_after(tmp_path, "full", 30) == 30
    assert rows_after(tmp_path, "full", 5) == 35


@pytest.mark.parametrize("synchronous", ["normal", "off"])
def test_what_was_committed_without_a_sync_is_gone(tmp_path: Path, synchronous: str) -> None:
    assert rows_after(tmp_path, "full", 10) == 10
    assert rows_after(tmp_path, synchronous, 10) == 10
    assert rows_after(tmp_path, synchronous, 10, power_lost=False) == 20
