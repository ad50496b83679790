"""Starts one child of the fork server, with the socket, the shared page and the stacks' file that it is given."""

from __future__ import annotations

import os
import socket
from typing import Protocol

import msgspec
import multiprocess
from multiprocess import forkserver, reduction, resource_tracker

from shared.settings import without_model_keys
from worker.forkserver.bootstrap import run_child
from worker.frames import WorkerConfig
from worker.shared_page import SharedPage, anonymous_file

#: what the fork server imports before it forks, what its workers use between them; the last one freezes what was made
PRELOAD_FIRST = (
    "worker.forkserver.ignore_signals",
    "worker.forkserver.bootstrap",
    "worker.channel",
    "worker.forkserver.kill_orphans",
)
#: what workers with MCP servers use, and those that fetch pages
MCP_PRELOAD = (
    "worker.tools.mcp.connection",
    "worker.tools.mcp.shared_run",
    "worker.tools.mcp.session_runs",
    "jsonschema.validators",
)
FETCH_PRELOAD = ("worker.tools.fetch",)
PRELOAD_LAST = "worker.forkserver.preload"


class Forked(Protocol):
    """A started process of the process library."""

    @property
    def pid(self) -> int | None: ...

    @property
    def exitcode(self) -> int | None: ...

    def close(self) -> None: ...


class Spawned(msgspec.Struct, frozen=True):
    """What a start gives the parent."""

    #: the process
    process: Forked
    #: pid of the fork server it came from
    server_pid: int
    #: the parent's end of the channel
    sock: socket.socket
    #: the memory it shares with its parent
    page: SharedPage
    #: where it writes the stacks of its threads when asked to
    stacks_fd: int


class PassedFd:
    """A file descriptor among a process's arguments: the child gets the number of its own copy."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[object, ...]:
        return _received_fd, (reduction.DupFd(self._fd),)


class _Detachable(Protocol):
    def detach(self) -> int: ...


def _received_fd(passed: _Detachable) -> int:
    return passed.detach()


def preload_of(config: WorkerConfig) -> list[str]:
    """Return what a fork server imports for these workers: of the SDKs, seconds and tens of MiB each, what they use."""
    adapters = dict.fromkeys(f"worker.agent.models.{model.provider}" for model in config.all_models)
    tools = [*(MCP_PRELOAD if config.mcp_servers else ()), *(FETCH_PRELOAD if config.fetch_allow else ())]
    return [*PRELOAD_FIRST, *adapters, *tools, PRELOAD_LAST]


def start_resource_tracker() -> None:
    """Start the process library's own helper process without the model keys, which it would show in /proc."""
    if resource_tracker._resource_tracker._fd is None:
        with without_model_keys():
            resource_tracker.ensure_running()


def spawn(entry: str, preload: list[str]) -> Spawned:
    """Start one child; blocks for milliseconds, the first time for seconds. Raises OSError and EOFError."""
    page = SharedPage.create()
    stacks_fd = anonymous_file("gatehouse-stacks")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        start_resource_tracker()
        context = multiprocess.get_context("forkserver")
        context.set_forkserver_preload(preload)
        arguments = (PassedFd(theirs.fileno()), PassedFd(page.fd), PassedFd(stacks_fd), entry)
        process = context.Process(target=run_child, args=arguments, name="gatehouse-worker")
        process.start()
        server_pid = forkserver._forkserver._forkserver_pid or 0
    except BaseException:
        ours.close()
        page.close()
        os.close(stacks_fd)
        raise
    finally:
        theirs.close()
    return Spawned(process, server_pid, ours, page, stacks_fd)
