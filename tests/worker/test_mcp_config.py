"""The file of GATEHOUSE_MCP_CONFIG: what it may hold, and how a mistake in it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.settings import parse_settings
from worker.frames import McpServer
from worker.mcp_config import read_mcp_servers
from worker.mcp_server import RunScope


def read(path: Path, servers: dict[str, Any], **environment: str) -> tuple[McpServer, ...]:
    """Read a file with these servers as the gateway does."""
    file = path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers, "other": 1}))
    return read_mcp_servers(parse_settings({"GATEHOUSE_MCP_CONFIG": str(file), **environment}).mcp_config)


def test_servers_are_read_as_other_programs_write_them(tmp_path: Path) -> None:
    servers = read(
        tmp_path,
        {
            "files": {"command": "npx", "args": ["-y", "server", "/data"], "env": {"KEY": "v"}, "alwaysAllow": []},
            "far": {"type": "http", "url": "https://example.com/mcp", "headers": {"Authorization": "Bearer x"}},
            "slow": {"command": "slow", "cwd": "/srv", "timeout_s": 3.5},
            "off": {"command": "off", "disabled": True},
        },
    )
    assert servers == (
        McpServer("files", "npx", ("-y", "server", "/data"), {"KEY": "v"}),
        McpServer("far", url="https://example.com/mcp", headers={"Authorization": "Bearer x"}),
        McpServer("slow", "slow", cwd="/srv", timeout_s=3.5),
    )


@pytest.mark.parametrize(
    ("servers", "problem"),
    [
        ({"a b": {"command": "x"}}, "server 'a b': a name is 1 to 32 letters"),
        ({"a__b": {"command": "x"}}, "server 'a__b': a name is"),
        ({"n" * 33: {"command": "x"}}, "a name is 1 to 32"),
        ({"a": {}}, "server 'a': it needs either a command or a url"),
        ({"a": {"command": "x", "url": "http://y"}}, "server 'a': it needs either a command or a url"),
        (
            {"a": {"type": "ws", "url": "http://y"}},
            "server 'a': type 'ws' is not served; there are stdio, http and sse",
        ),
        ({"a": {"type": "http", "command": "x"}}, "server 'a': type 'http' needs a url"),
        ({"a": {"url": "ftp://y"}}, "server 'a': its url is no http or https url"),
        ({"a": {"command": "x", "timeout_s": 0}}, "server 'a': timeout_s is not between 0 and 86400 seconds"),
        ({"a": {"command": ["x"]}}, "server 'a': Expected `str`, got `array` - at `$.command`"),
        ({"a": {"command": "x", "env": {"N": 5}}}, "server 'a': Expected `str`, got `int` - at `$.env[...]`"),
        ({"a": {"command": "x", "timeout_s": float("nan")}}, "is no JSON"),
        ({"a": {"command": "\ud800"}}, "is no JSON"),
        ({"a": "npx server"}, "server 'a': Expected `object`, got `str`"),
    ],
)
def test_a_mistake_is_named_in_one_line_without_values(tmp_path: Path, servers: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, servers)
    assert str(caught.value).startswith("GATEHOUSE_MCP_CONFIG: ")
    assert problem in str(caught.value)


def test_variables_are_filled_in_so_that_the_file_needs_no_secret(tmp_path: Path) -> None:
    server = {
        "command": "${HOME}/bin/server",
        "args": ["--as", "${WHO:-nobody}", "$HOME ${not a name}"],
        "env": {"TOKEN": "${TOKEN}", "MODE": "x-${MODE:-}-y"},
    }
    (read_server,) = read(tmp_path, {"a": server}, HOME="/home/ana", TOKEN='with "quotes"')
    assert read_server == McpServer(
        "a",
        "/home/ana/bin/server",
        ("--as", "nobody", "$HOME ${not a name}"),
        {"TOKEN": 'with "quotes"', "MODE": "x--y"},
    )
    with pytest.raises(SettingsError, match=r"GATEHOUSE_MCP_CONFIG: names \$\{TOKEN\}, which is not set"):
        read(tmp_path, {"a": server}, HOME="/home/ana")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"command": "x", "timeout": 30_000}, McpServer("a", "x", timeout_s=30.0)),
        ({"command": "x", "timeout": 60}, McpServer("a", "x", timeout_s=60.0)),
        ({"command": "x", "tool_timeout_sec": 9}, McpServer("a", "x", timeout_s=9.0)),
        ({"command": "x", "args": ["-p", 80]}, McpServer("a", "x", ("-p", "80"))),
        ({"httpUrl": "http://y/mcp", "trust": True}, McpServer("a", url="http://y/mcp")),
        ({"serverUrl": "http://y/mcp", "transport": "streamable_http"}, McpServer("a", url="http://y/mcp")),
        (
            {"command": "x", "includeTools": ["r"], "excludeTools": ["w"]},
            McpServer("a", "x", include=("r",), exclude=("w",)),
        ),
        (
            {"command": "x", "tools": {"allow": ["r"], "deny": ["w"]}},
            McpServer("a", "x", include=("r",), exclude=("w",)),
        ),
        ({"command": "x", "tools": ["*"], "disabledTools": ["w"]}, McpServer("a", "x", exclude=("w",))),
        ({"command": "x", "scope": "session", "idle_s": 5}, McpServer("a", "x", scope=RunScope.SESSION, idle_s=5.0)),
        (
            {"command": "x", "approve": ["w"], "approve_within_s": 9},
            McpServer("a", "x", approve=("w",), approve_within_s=9.0),
        ),
        ({"command": "x", "enabled": False}, None),
        ({"command": "x", "cwd": None, "autoApprove": ["r"], "description": "d", "_note": 1}, McpServer("a", "x")),
    ],
)
def test_keys_of_other_programs_files_are_honoured(
    tmp_path: Path, entry: dict[str, Any], expected: McpServer | None
) -> None:
    assert read(tmp_path, {"a": entry}) == ((expected,) if expected else ())


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"command": "x", "transport": "sse"}, "type 'sse' needs a url"),
        ({"url": "http://y", "oauth": {}}, "'oauth' is not served; put a token into headers"),
        ({"command": "x", "envFile": ".env"}, "'envFile' is not served"),
        ({"command": "x", "timout": 5}, "the key 'timout' is not known"),
        ({"url": "http://y", "serverUrl": "http://y"}, "'url' and 'serverUrl' say the same"),
        ({"command": "x", "scope": "planet"}, "Invalid enum value 'planet'"),
        ({"command": "x", "timeout": -1}, "timeout_s is not between"),
        ({"command": "x", "env": {"KEY": "${input:key}"}}, "holds ${input:key}, which an editor fills in"),
    ],
)
def test_what_is_not_served_is_refused_by_name(tmp_path: Path, entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, {"a": entry})
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_of_vs_code_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(
        json.dumps({"inputs": [], "servers": {"a": {"type": "stdio", "command": "x", "env": {"K": "${env:K}"}}}})
    )
    config = parse_settings({"GATEHOUSE_MCP_CONFIG": str(file), "K": "v"}).mcp_config
    assert read_mcp_servers(config) == (McpServer("a", "x", env={"K": "v"}),)


def test_secrets_in_arguments_and_in_the_path_of_a_url_are_secrets() -> None:
    args = (
        "-y",
        "@scope/server-filesystem",
        "--api-key=abc-123456",
        "--token",
        "tok-98765",
        "ghp_1234567890abcdefghij",
        "/srv/docs",
    )
    assert McpServer("a", "npx", args).secrets() == ("abc-123456", "tok-98765", "ghp_1234567890abcdefghij")
    far = McpServer("b", url="https://mcp.example/api/8f3b1c9e7d2a4f60/mcp?v=2024-11-05")
    assert set(far.secrets()) == {"8f3b1c9e7d2a4f60", "2024-11-05"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"mcpServers": []}', "[" * 100_000, b"\xff"])
def test_a_file_that_holds_no_servers_is_named(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "mcp.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=r"^GATEHOUSE_MCP_CONFIG: .*mcp\.json"):
        parse_settings({"GATEHOUSE_MCP_CONFIG": str(file)})
    with pytest.raises(SettingsError, match=r"^GATEHOUSE_MCP_CONFIG: .*nowhere"):
        parse_settings({"GATEHOUSE_MCP_CONFIG": str(tmp_path / "nowhere")})


def test_env_headers_and_the_secrets_in_a_url_are_secrets() -> None:
    program = McpServer("a", "x", ("--verbose",), env={"TOKEN": "tok-123456"})
    assert program.secrets() == ("tok-123456",)
    far = McpServer(
        "b", url="https://ana:pass-word@example.com/mcp?api_key=key-5%2B5&v=2", headers={"Authorization": "Bearer abc"}
    )
    assert set(far.secrets()) == {"Bearer", "abc", "pass-word", "key-5+5", "key-5%2B5", "2"}
