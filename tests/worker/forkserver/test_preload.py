"""The preload: what a fork server is after it."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from worker.frames import McpServer, ModelSpec, WorkerConfig
from worker.pool.processes.spawn import preload_of

LOOK = """
import gc, importlib, os, signal, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
warm = sys.modules["worker.forkserver.preload"]
print(len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
print(all(name in sys.modules for name in ("worker.agent.child", "uvloop", "cachetools", "msgspec")))
print(gc.get_freeze_count() > 10_000, warm.WARMED_BY == os.getpid(), bool(warm.TLS_CONTEXT.get_ca_certs()))
print(*(name for name in ("anthropic", "openai", "aiohttp") if name in sys.modules))
"""


def look(*providers: str) -> list[str]:
    names = preload_of(WorkerConfig(tuple(ModelSpec(provider, "m") for provider in providers), ""))
    command = [sys.executable, "-c", LOOK, *names]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture(scope="module")
def seen() -> list[str]:
    return look("openai", "offline", "openai")


def test_it_starts_no_thread(seen: list[str]) -> None:
    assert seen[0] == "1"


def test_it_is_deaf_to_signals_meant_for_the_group(seen: list[str]) -> None:
    assert seen[1] == "True True"


def test_it_has_imported_and_made_what_a_worker_needs_and_frozen_it(seen: list[str]) -> None:
    assert seen[2] == "True"
    assert seen[3] == "True True True"


def test_of_the_sdks_it_has_those_of_the_models_in_use(seen: list[str]) -> None:
    """Each costs every start a second or more, and every worker tens of MiB."""
    assert seen[4] == "openai aiohttp"
    assert look("offline")[4] == ""
    chain = WorkerConfig((ModelSpec("anthropic", "m"), ModelSpec("openai", "m")), "")
    assert {"worker.agent.models.anthropic", "worker.agent.models.openai"} < set(preload_of(chain))


def test_nothing_else_imports_it() -> None:
    look = "import sys, worker.agent.child, worker.channel; print('worker.forkserver.preload' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "False"


def test_what_tools_need_is_loaded_only_where_there_are_such_tools_and_starts_no_thread() -> None:
    plain = WorkerConfig((ModelSpec("offline", "offline"),), "")
    assert not [name for name in preload_of(plain) if name.startswith("worker.tools")]
    tooled = msgspec.structs.replace(plain, mcp_servers=(McpServer("t", "program"),), fetch_allow=("*",))
    names = preload_of(tooled)
    assert {"worker.tools.mcp.connection", "worker.tools.fetch"} < set(names)
    told = subprocess.run([sys.executable, "-c", LOOK, *names], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.splitlines()[0] == "1"
