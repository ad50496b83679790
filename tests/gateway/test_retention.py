"""What is old goes, what is in use or still to be seen stays, and copies of the database are made by themselves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gateway.retention import Retention
from gateway.scheduled_backup import ScheduledBackup, copies
from shared.errors import SettingsError
from shared.events import Event, Events
from shared.session_files import session_log_path
from shared.session_segments import checksum_file, packed_segment, segments_dir
from shared.settings import parse_settings
from shared.upkeep import DAY_S, Upkeep
from tests.shared.store.scratch import Scratch, sqlite


class Duty:
    """A host that is alone."""

    on_duty = True

    def __init__(self, removed: list[str]) -> None:
        self.removed = removed.append


async def test_sessions_out_of_use_go_with_their_logs_and_nothing_else_does(tmp_path: Path) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    for session in ("a:b:old", "a:b:new"):
        await scratch.answer("hi", session, messages=(b'{"role": "user", "content": "x"}',) * 2500)
        session_log_path(tmp_path, session).write_bytes(b"{}\n")
    await scratch.die("poison", "a:b:dead")
    await scratch.accept("a:b:waiting")
    scratch.clock.now += 10 * DAY_S
    await scratch.accept("a:b:new")
    removed: list[str] = []
    events = Events()
    for due in (await store.outbox.due("host", 100, 60)).replies:
        await store.outbox.delivered(due, "sent")
    retention = Retention(store, tmp_path, Upkeep(keep_history_s=9 * DAY_S), events.emit, Duty(removed))
    await retention.remove_all()
    assert removed == ["a:b:old"]
    assert {row.key for row in await store.sessions.latest()} == {"a:b:new", "a:b:dead", "a:b:waiting"}
    assert names(tmp_path, "*.jsonl") == ["a:b:new.jsonl"]
    assert len((await store.sessions.conversation("a:b:new")).messages) == 2500
    assert events.counts[Event.OLD_REMOVED] == 1
    await retention.remove_all()
    assert events.counts[Event.OLD_REMOVED] == 1
    await scratch.close()


def names(directory: Path, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


async def test_old_logs_go_and_those_that_are_written_stay(tmp_path: Path) -> None:
    scratch = Scratch(sqlite, tmp_path / "store")
    store = await scratch.open()
    old, new = session_log_path(tmp_path, "a:b:old"), session_log_path(tmp_path, "a:b:new")
    for path in (old, new):
        segments_dir(path).mkdir()
        for file in (path, packed_segment(path, 1), checksum_file(path, 1)):
            file.write_bytes(b"x")
            os.utime(file, (time.time() - 5 * DAY_S,) * 2)
    new.write_bytes(b"just now")
    retention = Retention(store, tmp_path, Upkeep(keep_logs_s=4 * DAY_S), Events().emit, Duty([]))
    await retention.remove_all()
    assert names(tmp_path) == ["a:b:new.jsonl", "store"]
    await scratch.close()


async def test_copies_are_made_when_due_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = Scratch(sqlite, tmp_path)
    await scratch.open()
    directory = tmp_path / "copies"
    directory.mkdir()
    (directory / "precious.db").write_text("not ours")
    for name in ("gatehouse-20200101-000000.db.gatehouse-part", "precious.db.part"):
        (directory / name).write_text("of a kill")
    events = Events()
    upkeep = Upkeep(directory, backup_interval_s=3600, backups_kept=2)
    backup = ScheduledBackup(upkeep, tmp_path / "data" / "gatehouse.db", events.emit)
    for number in range(4):
        monkeypatch.setattr(time, "gmtime", lambda number=number: time.localtime(number * 1000))
        assert await backup.make_if_due(directory) is not None
        assert await backup.make_if_due(directory) is None
        for path in copies(directory):
            os.utime(path, (path.stat().st_mtime - 4000,) * 2)
    assert len(copies(directory)) == 2
    assert (directory / "precious.db").read_text() == "not ours"
    assert events.counts[Event.BACKUP_MADE] == 4
    assert names(directory, "*part") == ["precious.db.part"]
    lost = ScheduledBackup(upkeep, tmp_path / "none.db", events.emit)
    assert await lost.make_if_due(directory) is None
    assert events.counts[Event.BACKUP_FAILED] == 1
    assert len(copies(directory)) == 2
    await scratch.close()


def test_the_settings_are_read_and_refused(tmp_path: Path) -> None:
    given = {"GATEHOUSE_KEEP_HISTORY": "30", "GATEHOUSE_KEEP_LOGS": "7", "GATEHOUSE_BACKUP_DIR": str(tmp_path)}
    upkeep = parse_settings(given | {"GATEHOUSE_BACKUP_KEEP": "3", "GATEHOUSE_BACKUP_INTERVAL": "3600"}).upkeep
    assert upkeep == Upkeep(tmp_path, 3600, 3, 30 * DAY_S, 7 * DAY_S)
    assert parse_settings({}).upkeep == Upkeep()
    for name, value in {
        "GATEHOUSE_KEEP_HISTORY": "0",
        "GATEHOUSE_KEEP_LOGS": "a week",
        "GATEHOUSE_BACKUP_DIR": str(tmp_path / "none"),
        "GATEHOUSE_BACKUP_KEEP": "0",
        "GATEHOUSE_BACKUP_INTERVAL": "1",
    }.items():
        with pytest.raises(SettingsError, match=name):
            parse_settings({name: value})
