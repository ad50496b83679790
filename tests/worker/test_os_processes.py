"""What is asked of processes that may be gone before the answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

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


def test_children_of_children_are_descendants() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(os_processes.descendants(process.pid)) == 1
        assert process.pid in os_processes.descendants(os.getpid())
