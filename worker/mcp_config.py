"""The file of GATEHOUSE_MCP_CONFIG: the usual ``mcpServers`` object, read and checked before a worker starts."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from shared.errors import SettingsError
from worker.channel import McpServer

SETTING = "GATEHOUSE_MCP_CONFIG"
#: what every provider takes in a tool's name; the server's tools need room behind it
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
KINDS = {"": "", "stdio": "command", "http": "url", "streamable-http": "url", "streamableHttp": "url"}


class _Entry(msgspec.Struct, frozen=True):
    """One server as the file has it; keys that other programs keep there are passed over."""

    type: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    timeout_s: float = 300.0
    disabled: bool = False


class _File(msgspec.Struct, frozen=True):
    servers: dict[str, _Entry] = msgspec.field(name="mcpServers")


def read_mcp_servers(path: Path) -> tuple[McpServer, ...]:
    """Return the servers that the file names and does not disable. Raises SettingsError, which names what is wrong."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError, UnicodeError) as error:
        raise SettingsError(SETTING, f"{str(path)!r}: {error}") from None
    return tuple(_server(name, entry) for name, entry in file.servers.items() if not entry.disabled)


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
