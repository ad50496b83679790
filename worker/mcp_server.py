"""An MCP server as a worker is told of it, and how it is there."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence

import msgspec

from shared.redaction import secrets_in

#: arguments whose value, behind ``=`` or as the next one, nobody but the program is to read
_SECRET_OPTION = re.compile(
    r"-{1,2}[\w-]*(key|token|secret|passw(or)?d|auth|credential|bearer|dsn)[\w-]*", re.IGNORECASE
)
#: what looks like a credential by itself: long, without spaces and slashes, with letters and digits
_TOKEN = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_.~+=-]{20,}")


class RunScope(enum.StrEnum):
    """Who shares one run of a server."""

    WORKER = "worker"  #: all sessions of a worker
    SESSION = "session"  #: nobody: each session has its own
    HOST = "host"  #: all sessions of all workers of a machine


class McpServer(msgspec.Struct, frozen=True):
    """One MCP server: a program to start, or with ``url`` one that is reached over HTTP."""

    #: the first part of its tools' names
    name: str
    #: the program, empty where a url is given
    command: str = ""
    #: its arguments
    args: tuple[str, ...] = ()
    #: variables of its environment, beside those it gets anyway
    env: dict[str, str] = {}
    #: the folder it starts in, empty for the worker's own
    cwd: str = ""
    #: where it is reached over HTTP, empty where a command is given
    url: str = ""
    #: whether the url speaks the older transport, whose events come by one GET and whose messages go by POST
    sse: bool = False
    #: headers of every request to the url
    headers: dict[str, str] = {}
    #: the longest one call may take, in seconds
    timeout_s: float = 300.0
    #: who shares one run of it
    scope: RunScope = RunScope.WORKER
    #: seconds without a call after which a session's own run is ended
    idle_s: float = 600.0
    #: the tools that are offered, by their names at the server; empty for all
    include: tuple[str, ...] = ()
    #: the tools that are not
    exclude: tuple[str, ...] = ()
    #: the tools whose calls the sender has to allow, ``*`` for all
    approve: tuple[str, ...] = ()
    #: seconds in which that has to be; no answer is a refusal
    approve_within_s: float = 3600.0

    def needs_approval(self, tool: str) -> bool:
        """Tell whether the sender has to allow the calls of a tool."""
        return "*" in self.approve or tool in self.approve

    def offers(self, tool: str) -> bool:
        """Tell whether a tool of the server is offered."""
        return (not self.include or tool in self.include) and tool not in self.exclude

    def secrets(self) -> tuple[str, ...]:
        """Return what no log line may show."""
        words = [word for value in self.headers.values() for word in value.split()]
        return (*words, *self.env.values(), *secrets_in(self.url), *_secrets_of(self.args))


class McpStatus(msgspec.Struct, frozen=True):
    """How one server of a worker is."""

    #: its name in the configuration
    server: str
    #: whether it is connected
    up: bool
    #: how many of its tools are offered
    tools: int
    #: why it is not connected, empty where it is or was not tried yet
    problem: str = ""


def not_running(server: str) -> str:
    """Return what a model reads of a call of a server that is down."""
    return f"the MCP server {server} is not running; it is started again in the background"


def lost(server: str) -> str:
    """Return what a model reads of a call during which its server was lost."""
    return f"the MCP server {server} was lost during the call; it may or may not have happened"


def _secrets_of(args: Sequence[str]) -> Iterator[str]:
    """Yield what of a program's arguments is a secret, by its option or by its own form."""
    for option, value in zip(("", *args), args, strict=False):
        name, _, given = value.partition("=")
        if given and _SECRET_OPTION.fullmatch(name):
            yield given
        elif _SECRET_OPTION.fullmatch(option) and not value.startswith("-"):
            yield value
        elif "://" in value:
            yield from secrets_in(value)
        elif _TOKEN.fullmatch(value.partition("=")[2] or value):
            yield value.partition("=")[2] or value
