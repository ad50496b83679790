"""Imported by the fork server alone: when its gateway is gone, it ends its children's whole process groups.

A worker whose loop or GIL is held cannot do that itself, and the parent-death signal reaches it alone, not the
programs its tools started. The fork server is their parent, holds no lock and runs no turn; it ends when the last
holder of its lifeline does (see worker.channel), and this is what it does last.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from pathlib import Path


def children() -> list[int]:
    """Return the processes this one forked that are not reaped yet; empty where the system does not list them."""
    found: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text("ascii").split()]
    return found


def end_children(fork_server: int) -> None:
    """SIGKILL the process group that each child leads; nothing in a process that was forked from the fork server."""
    if os.getpid() != fork_server:
        return
    for pid in children():
        # a child that does not lead a group yet has no programs either, and dies by the parent-death signal
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


atexit.register(end_children, os.getpid())
