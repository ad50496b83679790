"""Tools for workers under test: some work, some hang in every way there is."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing  # noqa: TID251 - what users' tools use
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from worker.tools import ToolContext, tool


@tool
def roll(sides: int, context: ToolContext) -> str:
    """Roll one die."""
    return f"rolled {sides} for {context.session}"


@tool
async def nap(seconds: float) -> str:
    """Sleep on the loop, as one should."""
    await asyncio.sleep(seconds)
    return "rested"


@tool
async def cancel_everybody() -> str:
    """Cancel every task of the worker, as one may whose code was made for a loop of its own."""
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)
    return "too late"


class PanicException(BaseException):
    """What libraries in Rust raise."""


@tool
def panic(file: str, context: ToolContext) -> str:
    """Tell, log and raise what is no UTF-8, as names of files may be."""
    text = file.encode().decode("ascii", "surrogateescape")
    context.say(text)
    logging.getLogger(__name__).warning(text)
    raise PanicException(text)


@tool
def sleep_in_a_thread(pid_file: str) -> str:
    """Sleep for ever in a thread, with a process of its own beside it."""
    start_grandchild(pid_file)
    while True:
        time.sleep(3600)


@tool
async def block_the_loop() -> str:
    """Block the worker's loop for ever."""
    while True:
        time.sleep(3600)  # noqa: ASYNC251 - blocking the loop is what this tool is for


@tool
def hold_the_gil() -> str:
    """Hold the interpreter's lock in C for ever, in a thread."""
    return str(re.match(r"(a+)+$", "a" * 64 + "b"))


@tool(retry_safe=False)
async def charge(path: str, context: ToolContext) -> str:
    """Append the call's idempotency key to a file; nobody may be charged twice."""
    note(path, context)
    return "charged"


@tool
def note(path: str, context: ToolContext) -> str:
    """Append the call's idempotency key to a file."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(context.idempotency_key + "\n")
    return "noted"


@tool
async def note_on_the_loop(path: str, context: ToolContext) -> str:
    """Append the call's idempotency key to a file, between two rounds of the loop."""
    return note(path, context)


@tool
def descriptors() -> list[str]:
    """Tell what a program inherits that is started without closing anything."""
    script = "import os; print(*(os.readlink(f'/dev/fd/{fd}') for fd in os.listdir('/dev/fd')[:-1] if int(fd) > 2))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, close_fds=False, check=True)
    return done.stdout.split()


@tool
def fork_a_pool() -> list[int]:
    """Work in forked processes, as anywhere."""
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        squares = pool.map(square, range(5))
    sleeper = context.Process(target=time.sleep, args=(3600,))
    sleeper.start()
    sleeper.terminate()
    sleeper.join(10)
    return [*squares, sleeper.exitcode or 0]


def square(number: int) -> int:
    return number * number


@tool
async def fork_on_the_loop() -> str:
    """Fork where the worker's loop runs, and log there, as libraries do."""
    if (pid := os.fork()) == 0:
        logging.getLogger("some.library").warning("a forked process says this")
        os._exit(0)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))  # noqa: ASYNC222 - it ends at once


@tool
def complain(about: str) -> str:
    """Write a warning to the log, as libraries do."""
    logging.getLogger("some.library").warning("something is wrong with %s", about)
    return "told"


@tool(output_limit_bytes=1 << 30)
def large(mebibytes: int) -> str:
    """Give more than a frame can carry."""
    return "x" * (mebibytes << 20)


def start_grandchild(pid_file: str) -> None:
    process = subprocess.Popen(["sleep", "987655"])
    Path(f"{pid_file}.new").write_text(str(process.pid))
    os.replace(f"{pid_file}.new", pid_file)  # noqa: PTH105 - one call says it best
