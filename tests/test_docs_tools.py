"""The examples of docs/tools.md run as they stand."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.settings import parse_settings
from worker.agent.todo import TodoStore
from worker.mcp_config import read_mcp_servers
from worker.tools import ToolContext
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

PAGE = (Path(__file__).parent.parent / "docs" / "tools.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


class Shop(BaseHTTPRequestHandler):
    """The shop of the example: it answers with the key and the order."""

    def do_POST(self) -> None:
        order = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.headers['idempotency-key']}: {order.decode()}".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""


@pytest.fixture
def shop() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/orders"
        server.shutdown()
        thread.join()


@pytest.fixture
def toolbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shop: str) -> Iterator[Toolbox]:
    """The functions of the page, each example in a module of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"docs_example_{number}" for number, _ in enumerate(blocks("python"))]
    for name, code in zip(names, blocks("python"), strict=True):
        (tmp_path / f"{name}.py").write_text(code.replace("https://shop.example/orders", shop))
    made = Toolbox(names)
    yield made
    made.close()
    for name in names:
        sys.modules.pop(name)


async def test_the_functions_do_what_the_page_says(toolbox: Toolbox) -> None:
    said: list[str] = []

    async def call(name: str, arguments: str) -> str:
        context = ToolContext("a:b:c", "msg_1", "c1", TodoStore(), said.append)
        return await toolbox.call(ToolCall("c1", name, arguments), context)

    assert await call("convert", '{"amount": 100}') == "105.00 eur"
    assert (await call("convert", '{"amount": 1, "to": "gbp"}')).startswith("Error: the arguments do not fit")
    assert await call("crawl", '{"pages": 2}') == "read 2 pages"
    assert said == ["page 1 of 2", "page 2 of 2"]
    assert await call("order", '{"item": "tea"}') == "msg_1.1.c1: tea"


async def test_the_model_is_told_what_the_page_says(toolbox: Toolbox) -> None:
    (convert,) = [spec for spec in toolbox.specs() if spec.name == "convert"]
    assert convert.description.startswith("Convert an amount of Swiss francs.")
    assert convert.description.endswith("what the model reads.")
    assert convert.parameters["properties"]["to"]["description"] == "the currency to pay in"
    (crawl,) = [spec for spec in toolbox.specs() if spec.name == "crawl"]
    assert list(crawl.parameters["properties"]) == ["pages"]


def test_the_config_is_one_that_is_read(tmp_path: Path) -> None:
    (text,) = blocks("json")
    (tmp_path / "mcp.json").write_text(text)
    values = {"GATEHOUSE_MCP_CONFIG": str(tmp_path / "mcp.json"), "TRACKER_TOKEN": "t-1"}
    files, tracker = read_mcp_servers(parse_settings(values).mcp_config)
    assert (files.name, files.command, files.timeout_s) == ("files", "npx", 300)
    assert (tracker.url, tracker.timeout_s) == ("https://tracker.example/mcp", 30)
    assert tracker.headers == {"Authorization": "Bearer t-1"}


def test_the_figures_are_those_of_the_code() -> None:
    from worker.agent import turn
    from worker.tools import declaration, threads
    from worker.tools import toolbox as tools
    from worker.tools.fetch import fetcher, tool
    from worker.tools.mcp import connection, servers

    figures = {
        f"at most {threads.THREAD_LIMIT} at once": True,
        f"and {tools.CANCEL_GRACE_S:g} s to clean up": True,
        f"| `output_limit_bytes` | {declaration.OUTPUT_LIMIT_BYTES} |": True,
        f"after {connection.FIRST_PAUSE_S:g} s and then later": True,
        f"nothing for {connection.LOOK_S:g} s while": True,
        f"waits up to {connection.CALL_WAIT_S:g} s for it": True,
        f"after {servers.READY_WAIT_S:g} s at the latest": True,
        f"{tool.PART_CHARS:,} characters a call": True,
        f"after {fetcher.BODY_LIMIT_BYTES // 2**20} MiB or {fetcher.TIMEOUT_S:g} s": True,
        "Sixteen calls of one turn": turn.CALLS_AT_ONCE == 16,
    }
    assert [text for text, right in figures.items() if text not in PAGE or not right] == []
