"""The preload: what a fork server is after it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import os, signal, sys, gc
import worker.agent.warm as warm
print(len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
print(all(name in sys.modules for name in ("anthropic", "openai", "aiohttp", "uvloop", "cachetools", "msgspec")))
print(gc.get_freeze_count() > 100_000, warm.WARMED_BY == os.getpid(), bool(warm.TLS_CONTEXT.get_ca_certs()))
"""


@pytest.fixture(scope="module")
def seen() -> list[str]:
    ran = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_it_starts_no_thread(seen: list[str]) -> None:
    assert seen[0] == "1"


def test_it_is_deaf_to_signals_meant_for_the_group(seen: list[str]) -> None:
    assert seen[1] == "True True"


def test_it_has_imported_and_made_what_a_worker_needs_and_frozen_it(seen: list[str]) -> None:
    assert seen[2] == "True"
    assert seen[3] == "True True True"


def test_nothing_else_imports_it() -> None:
    look = "import sys, worker.agent.child, worker.channel; print('worker.agent.warm' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "False"
