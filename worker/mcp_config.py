"""What GATEHOUSE_MCP_CONFIG names: servers as other programs' files write them, checked before a worker starts.

A key that changes what a server does is honoured or refused by name; none is passed over in silence. Those of Claude
Desktop and Code, VS Code, Cursor, Windsurf, Cline, Roo, Gemini CLI, Codex and opencode are known.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shared.errors import SettingsError
from worker.mcp_server import McpServer, RunScope

SETTING = "GATEHOUSE_MCP_CONFIG"
#: what every provider takes in a tool's name; the server's tools need room behind it
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
KINDS = {
    "": "",
    "stdio": "command",
    "local": "command",
    "http": "url",
    "remote": "url",
    "streamable-http": "url",
    "streamable_http": "url",
    "streamableHttp": "url",
    "sse": "url",
}
#: a ``timeout`` below this is seconds, as Cline and Roo write it: in milliseconds nobody means less than one second
LEAST_TIMEOUT_MS = 1000

#: other programs' names of a key, and ours
_SAME = {
    "transport": "type",
    "transportType": "type",
    "serverUrl": "url",
    "httpUrl": "url",
    "environment": "env",
    "workingDirectory": "cwd",
    "http_headers": "headers",
    "include": "includeTools",
    "exclude": "excludeTools",
    "include_tools": "includeTools",
    "exclude_tools": "excludeTools",
    "enabled_tools": "includeTools",
    "enabledTools": "includeTools",
    "allowedTools": "includeTools",
    "allowed_tools": "includeTools",
    "disabled_tools": "excludeTools",
    "disabledTools": "excludeTools",
    "tool_timeout_sec": "timeout_s",
}
#: what is about those programs alone: their lists, their questions, where an entry came from
_THEIRS = frozenset(
    "name title description icon iconUrl version gallery registry source metadata tags category author homepage "
    "autoApprove alwaysAllow autoApproved trust autoStart dev logLevel".split()
)
#: what is known and not served
_UNSERVED = {
    "oauth": "put a token into headers",
    "auth": "put a token into headers",
    "authProviderType": "put a token into headers",
    "envFile": "name its variables in env, such as ${NAME}",
    "bearer_token_env_var": "write it as a header, Bearer ${NAME}",
    "sandbox": "start the program in a sandbox by its command",
}


class _ToolLists(msgspec.Struct, frozen=True):
    """The form of ``tools`` that names tools that are offered, or not."""

    allow: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class _Entry(msgspec.Struct, frozen=True):
    """One server as people write it, under our names of the keys."""

    type: str = ""
    command: str = ""
    args: tuple[str | int | float, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    timeout_s: float = 300.0
    #: milliseconds, or seconds below LEAST_TIMEOUT_MS
    timeout: float | None = None
    disabled: bool = False
    enabled: bool = True
    tools: _ToolLists | tuple[str, ...] = ()
    include_tools: tuple[str, ...] = msgspec.field(default=(), name="includeTools")
    exclude_tools: tuple[str, ...] = msgspec.field(default=(), name="excludeTools")
    scope: RunScope = RunScope.WORKER
    idle_s: float = 600.0
    approve: tuple[str, ...] = ()
    approve_within_s: float = 3600.0


def read_mcp_servers(config: bytes) -> tuple[McpServer, ...]:
    """Return the servers that the object names and does not disable, none for nothing.

    Raises SettingsError, which names the server and what is wrong with it.
    """
    try:
        entries = msgspec.json.decode(config or b"{}", type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:  # what Python's reader takes for JSON and is none, such as NaN
        raise SettingsError(SETTING, f"is no JSON: {error}") from None
    read = [(name, _entry(name, entry)) for name, entry in entries.items()]
    return tuple(_server(name, entry) for name, entry in read if entry.enabled and not entry.disabled)


def _entry(name: str, entry: msgspec.Raw) -> _Entry:
    try:
        given = msgspec.json.decode(entry, type=dict[str, Any])
        if problem := _odd_key(given):
            raise SettingsError(SETTING, f"server {name!r}: {problem}")
        ours = {_SAME.get(key, key): value for key, value in given.items() if value is not None}
        return msgspec.json.decode(msgspec.json.encode(ours), type=_Entry)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise SettingsError(SETTING, f"server {name!r}: {error}") from None


def _odd_key(entry: dict[str, Any]) -> str:
    """Return what is wrong with the keys of an entry, empty if nothing is."""
    names: dict[str, str] = {}
    for key in entry:
        if key in _UNSERVED:
            return f"{key!r} is not served; {_UNSERVED[key]}"
        ours = _SAME.get(key, key)
        if ours in names:
            return f"{names[ours]!r} and {key!r} say the same; give one of them"
        names[ours] = key
        if ours not in _KEYS and key not in _THEIRS and not key.startswith(("_", "$", "//")):
            return f"the key {key!r} is not known; the known ones are in docs/tools.md"
    return ""


#: the keys of an entry
_KEYS = frozenset(_Entry.__struct_encode_fields__)


def _server(name: str, entry: _Entry) -> McpServer:
    problem = _problem(name, entry)
    if problem:
        raise SettingsError(SETTING, f"server {name!r}: {problem}")
    lists = entry.tools if isinstance(entry.tools, _ToolLists) else _ToolLists(allow=entry.tools)
    include = (*lists.allow, *lists.include, *entry.include_tools)
    return McpServer(
        name,
        command=entry.command,
        args=tuple(str(argument) for argument in entry.args),
        env=entry.env,
        cwd=entry.cwd,
        url=entry.url,
        sse=entry.type == "sse",
        headers=entry.headers,
        timeout_s=_timeout_s(entry),
        scope=entry.scope,
        idle_s=entry.idle_s,
        include=() if "*" in include else include,
        approve=entry.approve,
        approve_within_s=entry.approve_within_s,
        exclude=(*lists.deny, *lists.exclude, *entry.exclude_tools),
    )


def _timeout_s(entry: _Entry) -> float:
    if entry.timeout is None:
        return entry.timeout_s
    return entry.timeout / 1000 if entry.timeout >= LEAST_TIMEOUT_MS else entry.timeout


def _problem(name: str, entry: _Entry) -> str:
    """Return what is wrong with an entry, empty if nothing is."""
    if not NAME.fullmatch(name) or "__" in name:
        return "a name is 1 to 32 letters, digits, - and single _"
    if entry.type not in KINDS:
        return f"type {entry.type!r} is not served; there are stdio, http and sse"
    if bool(entry.command) == bool(entry.url):
        return "it needs either a command or a url"
    if (needed := KINDS[entry.type]) and not getattr(entry, needed):
        return f"type {entry.type!r} needs a {needed}"
    if entry.url and not entry.url.startswith(("http://", "https://")):
        return "its url is no http or https url"
    if not 0 < _timeout_s(entry) <= 86_400:
        return "timeout_s is not between 0 and 86400 seconds"
    if not 0 < entry.approve_within_s <= 86_400:
        return "approve_within_s is not between 0 and 86400 seconds"
    if not 0 < entry.idle_s <= 86_400:
        return "idle_s is not between 0 and 86400 seconds"
    return ""
