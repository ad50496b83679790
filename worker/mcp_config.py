"""What GATEHOUSE_MCP_CONFIG names: the usual ``mcpServers`` object, checked before a worker starts."""

from __future__ import annotations

import re

import msgspec

from shared.errors import SettingsError
from worker.frames import McpServer

SETTING = "GATEHOUSE_MCP_CONFIG"
#: what every provider takes in a tool's name; the server's tools need room behind it
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
KINDS = {"": "", "stdio": "command", "http": "url", "streamable-http": "url", "streamableHttp": "url"}


class _Entry(msgspec.Struct, frozen=True):
    """One server as people write it; keys that other programs keep there are passed over."""

    type: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    timeout_s: float = 300.0
    disabled: bool = False


def read_mcp_servers(config: bytes) -> tuple[McpServer, ...]:
    """Return the servers that the object names and does not disable, none for nothing.

    Raises SettingsError, which names the server and what is wrong with it.
    """
    try:
        entries = msgspec.json.decode(config or b"{}", type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:  # what Python's reader takes for JSON and is none, such as NaN
        raise SettingsError(SETTING, f"is no JSON: {error}") from None
    read = [(name, _entry(name, entry)) for name, entry in entries.items()]
    return tuple(_server(name, entry) for name, entry in read if not entry.disabled)


def _entry(name: str, entry: msgspec.Raw) -> _Entry:
    try:
        return msgspec.json.decode(entry, type=_Entry)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise SettingsError(SETTING, f"server {name!r}: {error}") from None


def _server(name: str, entry: _Entry) -> McpServer:
    problem = _problem(name, entry)
    if problem:
        raise SettingsError(SETTING, f"server {name!r}: {problem}")
    fields = {field: getattr(entry, field) for field in McpServer.__struct_fields__ if field != "name"}
    return McpServer(name, **fields)


def _problem(name: str, entry: _Entry) -> str:
    """Return what is wrong with an entry, empty if nothing is."""
    if not NAME.fullmatch(name) or "__" in name:
        return "a name is 1 to 32 letters, digits, - and single _"
    if entry.type not in KINDS:
        return f"type {entry.type!r} is not served; there are stdio and http"
    if bool(entry.command) == bool(entry.url):
        return "it needs either a command or a url"
    if (needed := KINDS[entry.type]) and not getattr(entry, needed):
        return f"type {entry.type!r} needs a {needed}"
    if entry.url and not entry.url.startswith(("http://", "https://")):
        return "its url is no http or https url"
    if not 0 < entry.timeout_s <= 86_400:
        return "timeout_s is not between 0 and 86400 seconds"
    return ""
