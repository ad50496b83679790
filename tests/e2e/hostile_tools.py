"""Tools that hang in every way there is, for the workers under test."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from pathlib import Path

from worker.tools import tool


@tool
def sleep_in_a_thread() -> str:
    """Sleep for ever in a thread, with a process of its own beside it."""
    start_grandchild()
    while True:
        time.sleep(3600)


@tool
async def sleep_on_the_loop() -> str:
    """Sleep for ever on the loop; nobody but its turn has to wait for it."""
    await asyncio.sleep(3600)
    return "rested"


@tool
async def block_the_loop() -> str:
    """Block the worker's loop for ever, with a process of its own beside it."""
    start_grandchild()
    while True:
        time.sleep(3600)  # noqa: ASYNC251 - blocking the loop is what this tool is for


@tool
def hold_the_gil() -> str:
    """Hold the interpreter's lock in C for ever, with a process of its own beside it."""
    start_grandchild()
    return str(re.match(r"(a+)+$", "a" * 64 + "b"))


@tool
def rest(seconds: float) -> str:
    """Sleep for a while in a thread."""
    time.sleep(seconds)
    return "rested"


@tool
def die() -> str:
    """End the whole worker at once."""
    os._exit(7)


@tool
def note(path: str, line: str) -> str:
    """Append one line to a file, so that a second run of this call would show."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return "noted"


def start_grandchild() -> None:
    """Start a process whose command line names the worker, so that a test finds its own among those of other runs."""
    subprocess.Popen(["sleep", f"987654.{os.getpid()}"])
