"""Tools that hang in every way there is, for the workers under test."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing  # noqa: TID251 - what users of it see
import os
import re
import socket
import struct
import subprocess
import time
from pathlib import Path

from worker.tools import ToolContext, tool


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
async def tell(context: ToolContext, text: str) -> str:
    """Tell how far it is, and go on for ever."""
    context.say(text)
    await asyncio.sleep(3600)
    return "never"


@tool
def draw(context: ToolContext, data: bytes) -> str:
    """Show an image."""
    context.attach(data)
    return "drawn"


@tool(approve=True)
def pay_out(path: str) -> str:
    """Pay, which somebody has to allow."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("paid\n")
    return "paid"


@tool(approve=True, approve_within_s=1)
def pay_soon() -> str:
    """Pay, which somebody has to allow at once."""
    return "paid"


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


@tool
def use_a_pool() -> list[int]:
    """Work in a pool of forked processes, which is terminated at the end."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


@tool
def terminate_forks() -> list[int | None]:
    """Start forked processes that would sleep for ever, terminate each at once, and tell how they ended."""
    ends: list[int | None] = []
    for _ in range(10):
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
        process.start()
        process.terminate()
        process.join(20)
        ends.append(process.exitcode)
    return ends


@tool
def what_programs_inherit() -> str:
    """List the descriptors of a program that is started as carelessly as possible."""
    return subprocess.run(
        ["/bin/ls", "/proc/self/fd"], close_fds=False, capture_output=True, check=True
    ).stdout.decode()


@tool
def what_forks_inherit() -> list[int]:
    """Tell which processes are at the other end of the sockets that a forked process holds."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(peers)


def peers() -> list[int]:
    found = []
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name.name))) as held:
            found.append(struct.unpack("3i", held.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
    return sorted(set(found))
