"""What is asked of processes that may be gone before the answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from worker import os_processes


def test_a_process_that_goes_while_it_is_asked_for_its_children_has_none() -> None:
    asked = threading.Event()
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            while not asked.is_set():
                for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
                    os_processes.descendants(pid)
        except BaseException as error:  # noqa: BLE001 - the test's thread tells the test
            problems.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(200):
        subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    asked.set()
    asking.join()
    assert problems == []


@pytest.mark.skipif(not os_processes.ON_LINUX, reason="only Linux has it")
def test_the_fork_server_and_its_workers_let_nobody_but_root_look_into_them() -> None:
    """Programs of MCP servers run as the same user: model keys and everybody's messages are in a worker's memory."""
    code = (
        "import ctypes, os, worker.forkserver.kill_orphans as imported\n"
        "for pid in (os.getpid(), os.fork()):\n"
        "    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)\n"  # PR_GET_DUMPABLE
        "os._exit(0)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout
    assert set(told) == {"0", "\n"}


def test_children_of_children_are_descendants() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(os_processes.descendants(process.pid)) == 1
        assert process.pid in os_processes.descendants(os.getpid())
