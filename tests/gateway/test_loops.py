"""What a gateway does beside its messages, for ever, goes on whatever one round of it ends with."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.command_acts import CommandActs
from gateway.load_history import LoadHistory
from gateway.openai_api.stateless_sessions import StatelessSessions
from gateway.retention import Retention
from gateway.scheduled_backup import ScheduledBackup
from gateway.storage_watch import StorageWatch
from shared.events import Event
from shared.settings import parse_settings

#: one round of each loop
ROUNDS: tuple[tuple[type, str], ...] = (
    (StatelessSessions, "_expire"),
    (Retention, "remove_all"),
    (StorageWatch, "look"),
    (ScheduledBackup, "make_if_due"),
    (CommandActs, "take"),
    (LoadHistory, "_sample"),
)


async def test_every_loop_of_the_gateway_that_fails_is_told_and_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: Counter[str] = Counter()

    def fail_once(owner: type, method: str) -> None:
        real = getattr(owner, method)

        @functools.wraps(real)
        def planted(*args: Any, **more: Any) -> Any:
            rounds[method] += 1
            if rounds[method] == 1:
                raise ZeroDivisionError(f"planted in {method}")
            return real(*args, **more)

        monkeypatch.setattr(owner, method, planted)

    for owner, method in ROUNDS:
        fail_once(owner, method)
    (tmp_path / "copies").mkdir()
    settings = {"GATEHOUSE_DATA_DIR": str(tmp_path / "data"), "GATEHOUSE_WORKERS": "0"}
    gateway = Gateway(parse_settings(settings | {"GATEHOUSE_BACKUP_DIR": str(tmp_path / "copies")}))
    await gateway.open()
    await gateway.start()
    async with asyncio.timeout(30):
        while min(rounds[method] for _, method in ROUNDS) < 2:  # noqa: ASYNC110 - six loops, each with its own clock
            await asyncio.sleep(0.05)
        while not list((tmp_path / "copies").glob("*.db")):  # noqa: ASYNC110 - made in a thread
            await asyncio.sleep(0.05)
    assert gateway.events.counts[Event.POOL_FAULT] == len(ROUNDS)
    hasten = asyncio.Event()
    await gateway.drain(hasten)
    await gateway.close(hasten)
