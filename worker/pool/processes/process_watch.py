"""Tells when a process that another one forked has ended, and signals that very process and its group.

By pidfd where the system has it: it fires only when the process is gone, whatever became of the fork server, and it
never names a later process that got the same pid. Elsewhere the pid is asked for from time to time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable

from worker import os_processes

#: seconds between two looks where there is no pidfd
POLL_S = 0.05


class ProcessWatch:
    """Watches one process from construction on; ``on_end`` is called once, on the loop."""

    def __init__(self, pid: int, on_end: Callable[[], None]) -> None:
        self.pid = pid
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._pidfd = open_pidfd(pid)
        self._timer: asyncio.TimerHandle | None = None
        self.ended = False
        self._group_gone = False
        if self._pidfd is None:
            self._poll()
        else:
            self._loop.add_reader(self._pidfd, self._end)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to the process; nothing if it is gone."""
        if self.ended:
            return
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "linux" and self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signum)
            else:
                os.kill(self.pid, signum)

    def kill_group(self) -> None:
        """SIGKILL the process, all that is left of the group it leads, and what it started outside of that."""
        if self._group_gone:
            return
        family = os_processes.descendants(self.pid)
        self.signal(signal.SIGKILL)
        # gone already, or not yet the leader of a group; macOS says EPERM where only zombies are left
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        os_processes.kill(family)
        self._group_gone = self.ended

    def close(self) -> None:
        """Stop watching; ``on_end`` is not called any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _poll(self) -> None:
        if os_processes.alive(self.pid):
            self._timer = self._loop.call_later(POLL_S, self._poll)
        else:
            self._end()

    def _end(self) -> None:
        self.ended = True
        self.close()
        self._on_end()


def open_pidfd(pid: int) -> int | None:
    """Open a pidfd; None where the system has none or the process is gone (polling then finds out)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None
