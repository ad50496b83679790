"""A disk that is full, read-only, locked or corrupt: 503 instead of a false 200, and work goes on after it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from loadtests.platform import RunningPlatform
from loadtests.signing import SignedRequest
from tests.e2e.bot import Bot
from tests.e2e.command_line import run_command
from tests.e2e.conftest import started

DATABASE = "gatehouse.db"
Fault = Callable[[Bot, Path], AbstractContextManager[None]]


@contextlib.contextmanager
def full_disk(bot: Bot, _: Path) -> Iterator[None]:
    """Let no write of the gateway reach the disk: the kernel refuses to let any file of it grow or change."""
    if sys.platform != "linux":
        pytest.skip("prlimit is Linux's")
    unlimited = resource.prlimit(bot.gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(bot.gateway.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
    try:
        yield
    finally:
        resource.prlimit(bot.gateway.pid, resource.RLIMIT_FSIZE, unlimited)


@contextlib.contextmanager
def locked_database(_: Bot, data_dir: Path) -> Iterator[None]:
    """Hold the write lock in another process, as a backup tool does."""
    with contextlib.closing(sqlite3.connect(data_dir / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def readiness(bot: Bot) -> httpx2.Response:
    return httpx2.get(f"{bot.gateway.url}/readyz", timeout=30)


def refused(bot: Bot, request: SignedRequest) -> None:
    """Post a message that must not be taken now."""
    answer = bot.post(request)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "x-gatehouse-message" not in answer.headers


@pytest.mark.parametrize("fault", [full_disk, locked_database])
def test_a_store_that_cannot_commit_refuses_and_goes_on_when_it_can(
    model_bot: Bot, tmp_path: Path, fault: Fault
) -> None:
    bot = model_bot
    assert bot.say("running", "[[sleep 1]] it ran through the fault").status_code == 200
    bot.wait_for_model_calls(1)
    pid, workers = bot.gateway.pid, bot.gateway.worker_pids()
    request = bot.request("new", "it came during the fault", message="msg_during")
    with fault(bot, tmp_path):
        refused(bot, request)
        bot.wait_until(lambda: readiness(bot).status_code == 503, 10, "not ready")
        assert "the store cannot commit" in readiness(bot).json()["reason"]
        assert "gatehouse_ready 0.0" in bot.gateway.ask("GET", "/metrics").text
        bot.gateway.wait_for("store_unavailable", within_s=20)
        refused(bot, request)
        assert httpx2.get(f"{bot.gateway.url}/livez").status_code == 200
        assert bot.replies() == []
    bot.wait_until(lambda: readiness(bot).status_code == 200, 10, "ready again")
    assert bot.post(request).status_code == 200
    bot.wait_for_replies(2, within_s=30)
    assert "it ran through the fault" in bot.replies("running")[0].text
    assert "it came during the fault" in bot.replies("new")[0].text
    bot.gateway.wait_for("store_recovered", within_s=10)
    assert (bot.gateway.pid, bot.gateway.worker_pids()) == (pid, workers)
    assert bot.gateway.terminate() == 0


@contextlib.contextmanager
def no_descriptors(bot: Bot, _: Path) -> Iterator[None]:
    """Let the gateway open no further file."""
    if sys.platform != "linux":
        pytest.skip("prlimit is Linux's")
    before = resource.prlimit(bot.gateway.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(bot.gateway.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(bot.gateway.pid, resource.RLIMIT_NOFILE, before)


def test_a_fault_is_told_on_an_idle_gateway_too(tmp_path: Path, platform: RunningPlatform) -> None:
    """Once, with what it is, and so is its end."""
    faults: dict[str, Fault] = {"the store cannot commit": full_disk, "no file can be opened": no_descriptors}
    with contextlib.ExitStack() as running:
        bots = {}
        for number, words in enumerate(faults):
            (directory := tmp_path / str(number)).mkdir()
            bots[words] = running.enter_context(started(directory, platform))
        with contextlib.ExitStack() as lasting:
            for words, bot in bots.items():
                lasting.enter_context(faults[words](bot, tmp_path))
            for words, bot in bots.items():
                assert words in bot.gateway.wait_for("store_unavailable", within_s=30)["error"]
        for bot in bots.values():
            bot.gateway.wait_for("store_recovered", within_s=30)
            assert len([line for line in bot.gateway.events("store_unavailable") if "watch" in line["part"]]) == 1


def test_a_database_that_is_damaged_under_a_running_gateway_accepts_nothing_more_and_is_salvaged(
    model_bot: Bot, tmp_path: Path
) -> None:
    bot = model_bot
    answered = [bot.say(f"s{number}", "hello") for number in range(3)]
    bot.wait_for_replies(3)
    running = bot.say("long", "[[sleep 3]] its turn runs when the file is damaged")
    bot.wait_for_running_model_call()
    database = tmp_path / DATABASE
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'history'")
    with database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    late = bot.say("s0", "its history cannot be read")  # nothing was read of that page yet
    bot.wait_until(lambda: readiness(bot).status_code == 503, 30, "not ready")
    assert "the database is damaged" in readiness(bot).json()["reason"]
    for number in range(20):
        refused(bot, bot.request(f"n{number}", "hello", message=f"msg_{number}"))
    assert bot.gateway.terminate(within_s=20) == 0  # what can never be written holds up no end
    (told,) = bot.gateway.events("store_unavailable")
    assert "the database is damaged" in told["error"]

    salvaged = run_command(tmp_path, "salvage", "--json", GATEHOUSE_DATA_DIR=str(tmp_path))
    assert salvaged.returncode == 0, salvaged.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / f"{DATABASE}.salvaged")) as db:
        kept = {str(name) for (name,) in db.execute("SELECT id FROM inbox")}
    assert kept >= {
        answer.headers["x-gatehouse-message"] for answer in (*answered, running, late) if answer.status_code == 200
    }
    assert [table["name"] for table in json.loads(salvaged.stdout)["tables"] if table["damages"]] == ["history"]


def test_a_corrupt_database_is_one_line_and_status_one_at_the_start(bot: Bot, tmp_path: Path) -> None:
    assert bot.say("s", "hello").status_code == 200
    bot.wait_for_replies(1)
    bot.gateway.kill()
    database = tmp_path / DATABASE
    log = tmp_path / f"{DATABASE}-wal"
    whole = log.read_bytes()
    log.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    for arguments in ((), ("check",), ("backup", str(tmp_path / "copy.db"))):
        ended = run_command(tmp_path, *arguments, GATEHOUSE_WORKERS="0")
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert "of its write-ahead log gatehouse.db-wal commits would be lost" in line
    salvaged = run_command(tmp_path, "salvage", GATEHOUSE_DATA_DIR=str(tmp_path))
    assert "is damaged: a later frame has that page" in salvaged.stdout
    log.write_bytes(whole)
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = database.read_bytes()
    database.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    for arguments in ((), ("check",)):
        ended = run_command(tmp_path, *arguments, GATEHOUSE_WORKERS="0")
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert str(database) in line
    database.write_bytes(whole)
    checked = run_command(tmp_path, "check").stdout
    assert "settings: ok\n" in checked
    assert f"database: ok ({database})\n" in checked


def unwritable(tmp_path: Path) -> Path:
    """Return a directory in which nobody can write, root included."""
    if os.geteuid() == 0:
        return Path("/proc/gatehouse")
    tmp_path.chmod(0o500)
    return tmp_path


def test_a_read_only_disk_is_one_line_and_status_one_at_the_start(tmp_path: Path) -> None:
    for arguments in ((), ("check",)):
        ended = run_command(tmp_path, *arguments, GATEHOUSE_DATA_DIR=str(unwritable(tmp_path)), GATEHOUSE_WORKERS="0")
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert "cannot be opened for writing" in line
