"""Real processes on the same sessions of one server, with usage counted and a budget held."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from shared.budgets import Spend
from shared.store import open_store
from tests.postgres_server import shared_server
from tests.shared.store.overlapping_process import STEP_TOKENS, budgets_of
from tests.worker.pool.conditions import until

PROCESSES, SESSIONS, BUDGET_TOKENS = 4, 200, 200_000
WITHIN_S = 120


class Overlapping:
    """One of the processes, and what it told."""

    def __init__(self, url: str, number: int) -> None:
        command = [sys.executable, "-m", "tests.shared.store.overlapping_process", url]
        self._process = subprocess.Popen(
            [*command, str(number), str(SESSIONS), str(BUDGET_TOKENS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.told: list[tuple[str, int]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> tuple[int, str]:
        """Tell it to end; return its exit status and what it complained of."""
        with self._process as process:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.close()
            self._reader.join(30)
            return process.wait(30), process.stderr.read()

    def ended(self) -> bool:
        """Tell whether it has ended by itself."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message, tokens = line.split()
            self.told.append((message, int(tokens)))


async def test_four_processes_overlap_on_two_hundred_sessions_and_a_budget() -> None:
    """No deadlock reaches a message, each is settled once, and all of them together keep the budget."""
    url = shared_server().url()
    store = open_store(url, Path("/nowhere"), inbox_limit=100_000)
    await store.open()
    with ExitStack() as stack:
        processes = [Overlapping(url, number) for number in range(PROCESSES)]
        for process in processes:
            stack.callback(process.kill)
        wanted = PROCESSES * SESSIONS

        def told() -> list[tuple[str, int]]:
            return [one for process in processes for one in process.told]

        await until(
            lambda: len(told()) >= wanted or any(process.ended() for process in processes), "all settled", WITHIN_S
        )
        assert [process.end() for process in processes] == [(0, "")] * PROCESSES
        assert sorted(message for message, _ in told()) == sorted(
            f"msg_{number}-{session}" for number in range(PROCESSES) for session in range(SESSIONS)
        )
    used = sum(tokens for _, tokens in told())
    (account,) = await store.spending.accounts(budgets_of(BUDGET_TOKENS))
    assert account.held == Spend()
    assert [spend.tokens for _, spend in account.spenders] == [used]
    assert BUDGET_TOKENS <= used < BUDGET_TOKENS + STEP_TOKENS
    await store.close()
