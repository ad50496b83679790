"""What the operating system tells of processes: the one place that asks it.

On Linux from /proc, where a question costs microseconds and blocks nobody's loop; elsewhere by psutil.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

#: prctl's PR_SET_PDEATHSIG, PR_SET_DUMPABLE and PR_SET_CHILD_SUBREAPER (linux/prctl.h)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
#: psutil's words for the letters of /proc
LETTERS = {psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_STOPPED: "T", psutil.STATUS_TRACING_STOP: "t"}

ON_LINUX = sys.platform == "linux"


def state(pid: int) -> str:
    """Return the letter of a process's state as Linux tells it (Z: ended, T: stopped, t: traced); empty if none."""
    if ON_LINUX:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[0]
        return ""
    with contextlib.suppress(psutil.Error):
        return LETTERS.get(psutil.Process(pid).status(), "S")
    return ""


def alive(pid: int) -> bool:
    """Tell whether a process of this pid runs; one that ended and was not reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return state(pid) != "Z"


def children(pid: int) -> list[int]:
    """Return the processes whose parent this one is, those that were not reaped yet included."""
    if not ON_LINUX:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    found: list[int] = []
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it is gone, or goes right now
        return []
    for thread in threads:
        with contextlib.suppress(OSError):
            found += [int(word) for word in (thread / "children").read_text("ascii").split()]
    return found


def descendants(pid: int) -> list[int]:
    """Return all that a process started and that has not been left to another parent."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def kill(pids: Iterable[int]) -> None:
    """SIGKILL processes; nothing for one that is gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    if ON_LINUX:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return int(psutil.Process().memory_info().rss)


def die_with_parent(signum: int) -> None:
    """Have this process sent a signal when the thread that started it ends; nothing outside of Linux."""
    _prctl(PR_SET_PDEATHSIG, signum)


def adopt_orphans() -> None:
    """Become the parent of what is left of this process's descendants; nothing outside of Linux.

    A program that a tool started in a session of its own then stays among the descendants, however it was started.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """Let nobody but root read this process's memory, first environment and descriptors; nothing outside of Linux.

    Its forks are hidden too, and the programs that it starts are not.
    """
    _prctl(PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    if ON_LINUX:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
