"""Imported by the fork server alone: it adopts what its workers leave behind, and ends all of it with its gateway.

A worker whose loop or GIL is held cannot do that itself, and the parent-death signal reaches it alone, not the
programs its tools started. The fork server is their parent, holds no lock and runs no turn; it ends when the last
holder of its lifeline does (see worker.forkserver.bootstrap), and this is what it does last.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import time
import warnings

from worker import os_processes

#: how often it looks for more: what is killed leaves its own children behind
PASSES = 20
#: seconds between two looks
PAUSE_S = 0.01


def end_children(fork_server: int) -> None:
    """SIGKILL every child with its group and its descendants, until none is left that runs.

    Nothing in a process that was forked from the fork server.
    """
    if os.getpid() != fork_server:
        return
    for _ in range(PASSES):
        running = [pid for pid in os_processes.children(fork_server) if os_processes.alive(pid)]
        if not running:
            return
        for pid in running:
            family = os_processes.descendants(pid)
            # a child that does not lead a group yet has no programs either
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            os_processes.kill((pid, *family))
        time.sleep(PAUSE_S)


os_processes.adopt_orphans()
# workers are its forks: their environment has the model keys, their channel everybody's messages, and programs of MCP
# servers run as the same user
os_processes.hide_memory()
# the process library reaps whom it adopted, and is surprised each time
warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")
atexit.register(end_children, os.getpid())
