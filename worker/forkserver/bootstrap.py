"""The first code of a worker process: its own process group, its stacks on demand, its end when the parent is gone."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import socket
import sys
from types import FrameType

from shared.settings import end_safe_path
from worker.forkserver.inheritance import let_forks_be_their_own, let_programs_inherit_nothing
from worker.shared_page import SharedPage

#: prctl's PR_SET_PDEATHSIG (linux/prctl.h)
PR_SET_PDEATHSIG = 1


def run_child(socket_fd: int, page_fd: int, stacks_fd: int, entry: str) -> None:
    """Live as a worker: the whole life of a child process, given by the supervisor to the fork server.

    ``entry`` is the dotted name of the module whose ``run(sock, page)`` owns the child until the channel closes or
    the drain is done. A child whose parent is gone ends its whole process group.
    """
    end_safe_path()
    lead_own_group()
    faulthandler.register(signal.SIGUSR1, file=stacks_fd, all_threads=True, chain=False)
    sock = socket.socket(fileno=socket_fd)
    watch = sock.dup()
    end_group_if_orphaned(watch)
    page = SharedPage(page_fd)
    let_programs_inherit_nothing()
    let_forks_be_their_own((sock.fileno(), watch.fileno(), page_fd))
    try:
        importlib.import_module(entry).run(sock, page)
    finally:
        end_group_if_orphaned(watch)
    watch.close()
    page.close()


def lead_own_group() -> None:
    """Lead an own process group that no signal meant for the parent's reaches, and die when the fork server does."""
    os.setsid()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # a handler, not SIG_IGN: an ignored signal stays ignored in the programs that tools start
        signal.signal(signum, _ignore_signal)
    close_fork_server_lifeline()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def close_fork_server_lifeline() -> None:
    """Close the child's copy of the pipe whose end stops the fork server.

    Every child is born with one, so a fork server outlives its parent until the last child is gone; a child that
    holds the GIL would keep both alive for ever. See multiprocess.forkserver.ForkServer.connect_to_new_process.
    """
    from multiprocess import forkserver

    server = forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def end_group_if_orphaned(watch: socket.socket) -> None:
    """Kill the own process group, this process included, when the other end of the socket is gone."""
    with contextlib.suppress(BlockingIOError):
        try:
            gone = watch.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except ConnectionError:
            gone = True
        if gone:
            os.killpg(0, signal.SIGKILL)


def _ignore_signal(signum: int, frame: FrameType | None) -> None:
    """Do nothing: the pool ends a worker over the channel, or by SIGKILL."""
