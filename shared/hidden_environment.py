"""Keeps the environment that a gateway or a host of workers was started with from being read by what runs beside it.

Linux shows every process's first environment in ``/proc/PID/environ`` for as long as it lives, whatever the process
removes from it later: so the bytes themselves are overwritten. See proc_pid_environ(5) and PR_SET_DUMPABLE in
prctl(2). Root can read a process's memory all the same; docs/security.md says so.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

#: prctl's PR_SET_DUMPABLE (linux/prctl.h): with 0 only root may read this process's memory and files in /proc
PR_SET_DUMPABLE = 4
#: where the first environment begins and ends in memory, among the fields of /proc/self/stat, counted from 1
ENV_START, ENV_END = 50, 51


def hide_environment(unused: frozenset[str]) -> None:
    """Overwrite the first bytes of these variables, which nobody uses any more; does nothing beside Linux."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # the fields behind the name of the program, which may hold blanks and brackets
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[field - 3]) for field in (ENV_START, ENV_END))
    if not 0 < start < end:
        return
    at = start
    for entry in ctypes.string_at(start, end - start).split(b"\0"):
        name = entry.partition(b"=")[0].decode("utf-8", "surrogateescape")
        if name in unused:
            ctypes.memset(at, 0, len(entry))
        at += len(entry) + 1
