"""The first code of a worker process: its own process group, its stacks on demand, its end when the parent is gone.

What a worker starts gets none of that: a program inherits its three standard descriptors alone, and what is forked
without one heeds signals as anywhere.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import socket
from types import FrameType

from shared.settings import end_safe_path
from worker import os_processes
from worker.forkserver.inheritance import let_forks_be_their_own, let_programs_inherit_nothing
from worker.shared_page import SharedPage

#: what a supervisor or a terminal sends to a whole process group
GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: the last of the standard descriptors
STANDARD_FDS = 2


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
    keep_descriptors()
    os.register_at_fork(after_in_child=lambda: become_ordinary(sock.fileno(), watch.fileno()))
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
    for signum in GROUP_SIGNALS:
        # a handler, not SIG_IGN: an ignored signal stays ignored in the programs that tools start
        signal.signal(signum, _ignore_signal)
    close_fork_server_lifeline()
    os_processes.die_with_parent(signal.SIGKILL)
    os_processes.adopt_orphans()


def keep_descriptors() -> None:
    """Let no program inherit a descriptor but the three standard ones, wherever the others came from.

    Those that came over a socket, and those the fork server was given, would be inherited.
    """
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - no path of a file; on Linux and macOS alike
        with contextlib.suppress(OSError):  # that of the listing itself is closed by now
            if int(name) > STANDARD_FDS:
                os.set_inheritable(int(name), False)


def become_ordinary(*channel_fds: int) -> None:
    """Heed signals, and hold no end of the worker's channel, in a process that a tool forked."""
    for signum in GROUP_SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in channel_fds:
        if fd >= 0:
            os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


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
