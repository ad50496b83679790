"""fetch: pages of the hosts on the list, and nothing else, wherever a page or a name leads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shared.allow_list import AllowList
from shared.errors import ToolError
from tests.worker.tools.fetch.web import Web, running_web
from tests.worker.waiting import until
from worker.agent.todo import TodoStore
from worker.tools import ToolContext
from worker.tools.fetch.fetcher import Fetcher
from worker.tools.fetch.tool import PART_CHARS, read_page
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with running_web() as running:
        yield running


@pytest.fixture
def fetcher(web: Web) -> Fetcher:
    return Fetcher(AllowList([f"127.0.0.1:{web.port}"]))


class Names:
    """A name server that answers from a script, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0)


async def refused(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(ToolError) as caught:
        await fetcher.get(url)
    return str(caught.value)


async def test_a_page_is_read_as_text_with_its_links(fetcher: Fetcher, web: Web) -> None:
    assert await read_page(fetcher, f"{web.url}/page", 0) == (
        f"{web.url}/page\n\nA page\n\n# Hello\n\nSee [more]({web.url}/more?x=1)."
    )


async def test_text_and_json_are_read_as_they_are(fetcher: Fetcher, web: Web) -> None:
    assert (await read_page(fetcher, f"{web.url}/text", 0)).endswith("\n\nplain <b>text</b>")
    assert (await read_page(fetcher, f"{web.url}/json", 0)).endswith('\n\n{"a": 1}')
    assert "café" in await read_page(fetcher, f"{web.url}/latin", 0)
    assert "café" in await read_page(fetcher, f"{web.url}/odd", 0)


async def test_a_long_page_is_read_in_parts_that_make_it_whole(fetcher: Fetcher, web: Web) -> None:
    parts, start = [], 0
    while True:
        head, part, *note = (await read_page(fetcher, f"{web.url}/long", start)).split("\n\n")
        assert head == f"{web.url}/long"
        parts.append(part)
        start += len(part)
        if not note:
            break
        assert note == [f"[characters up to {start} of 50000; call again with start={start} to read on]"]
        assert len(part) == PART_CHARS
    assert "".join(parts) == "".join(f"{number:09} " for number in range(5_000))
    with pytest.raises(ToolError, match="start 50000 is outside the page, which has 50000 characters"):
        await read_page(fetcher, f"{web.url}/long", 50_000)


async def test_what_is_too_large_is_cut_and_says_so(fetcher: Fetcher, web: Web) -> None:
    for name in ("huge", "bomb"):
        page = await fetcher.get(f"{web.url}/{name}")
        assert page.cut
        assert len(page.text) == 1024 * 1024
    end = await read_page(fetcher, f"{web.url}/huge", 1024 * 1024 - 5)
    assert end.endswith("\n\nxxxxx\n\n[the page is larger than what is read of it]")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/image", "is image/png, which is no text"),
        ("/untyped", "is application/octet-stream, which is no text"),
        ("/status/404", "answered 404 Not Found"),
        ("/status/500", "answered 500 Internal Server Error"),
        ("/status/204", "answered 204 No Content"),
        ("/around/0", "redirects more than 5 times"),
        ("/to/file:///etc/passwd", "only http and https urls"),
        ("/to/http://[", "that is no url"),
        ("/to/http://127.0.0.1:1/", "127.0.0.1:1 may not be fetched"),
        ("/to/http://169.254.169.254/latest", "169.254.169.254:80 may not be fetched"),
        ("/to///evil.example/x", "evil.example:80 may not be fetched"),
    ],
)
async def test_what_cannot_be_fetched_is_told(fetcher: Fetcher, web: Web, path: str, told: str) -> None:
    assert told in await refused(fetcher, web.url + path)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///etc/passwd", "only http and https urls"),
        ("ftp://127.0.0.1/x", "only http and https urls"),
        ("example.com/page", "only http and https urls"),
        ("", "only http and https urls"),
        ("http://", "only http and https urls"),
        ("http://[::1", "that is no url"),
        ("http://127.0.0.1:99999/", "that is no url"),
        ("http://me:secret@127.0.0.1/", "a user or a password"),
        ("http://127.0.0.2/", "127.0.0.2:80 may not be fetched; these hosts may: 127.0.0.1"),
    ],
)
async def test_a_url_that_may_not_be_fetched_asks_no_name_server(url: str, told: str) -> None:
    names = Names()
    assert told in await refused(Fetcher(AllowList(["127.0.0.1"]), names), url)
    assert names.asked == []


async def test_a_redirect_within_the_list_is_followed(fetcher: Fetcher, web: Web) -> None:
    assert (await fetcher.get(f"{web.url}/to//text")).url == f"{web.url}/text"


async def test_no_cookie_and_no_secret_is_sent(fetcher: Fetcher, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    await fetcher.get(f"{web.url}/page")
    await fetcher.get(f"{web.url}/page")
    headers = {name for name, _ in web.seen[-1].headers.items()}
    assert headers == {"host", "user-agent", "accept", "accept-encoding", "connection"}


async def test_a_name_that_leads_into_a_private_network_is_refused_unless_it_is_listed_itself(web: Web) -> None:
    for entry in ("*", "*.corp.example", f"*:{web.port}", f"*.corp.example:{web.port}"):
        names = Names(["127.0.0.1"])
        port = f":{web.port}" if ":" in entry else ""
        said = await refused(Fetcher(AllowList([entry]), names), f"http://wiki.corp.example{port}/page")
        assert said == "wiki.corp.example leads to an address of a private network and is not listed itself"
    fetcher = Fetcher(AllowList([f"wiki.corp.example:{web.port}"]), Names(["127.0.0.1"]))
    assert (await fetcher.get(f"http://wiki.corp.example:{web.port}/text")).text == "plain <b>text</b>"
    assert web.seen[-1].headers["host"] == f"wiki.corp.example:{web.port}"


async def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    names = Names(["203.0.113.5", "93.184.215.14", "::ffff:10.0.0.1"])
    assert "private network" in await refused(Fetcher(AllowList(["*"]), names), "http://example.com/")


async def test_a_name_is_looked_up_once_and_the_connection_goes_where_the_check_was(web: Web) -> None:
    """A name server that changes its mind between the check and the connection gains nothing."""
    names = Names(["127.0.0.1"], ["192.0.2.1"])
    fetcher = Fetcher(AllowList([f"rebind.example:{web.port}"]), names)
    await fetcher.get(f"http://rebind.example:{web.port}/text")
    assert names.asked == ["rebind.example"]


async def test_slow_names_take_few_of_the_threads_that_look_names_up() -> None:
    running = most = 0

    async def slow(host: str, port: int) -> list[str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return ["10.0.0.1"]

    fetcher = Fetcher(AllowList(["*"]), slow)
    await asyncio.gather(*(refused(fetcher, f"http://n{number}.example/") for number in range(10)))
    assert most == 2


async def test_a_redirect_looks_its_own_name_up_and_checks_it(web: Web) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.1"])
    fetcher = Fetcher(AllowList([f"door.example:{web.port}", f"*.example:{web.port}"]), names)
    said = await refused(fetcher, f"http://door.example:{web.port}/to/http://inner.example:{web.port}/text")
    assert said == "inner.example leads to an address of a private network and is not listed itself"
    assert names.asked == ["door.example", "inner.example"]


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "10.0.0.1", "localhost"]
)
async def test_the_wildcard_means_public_hosts_however_a_private_one_is_written(web: Web, host: str) -> None:
    requests = len(web.seen)
    await refused(Fetcher(AllowList([f"*:{web.port}"])), f"http://{host}:{web.port}/page")
    assert len(web.seen) == requests


async def test_a_page_that_never_ends_is_given_up_in_time_and_its_connection_closed(web: Web) -> None:
    fetcher = Fetcher(AllowList([f"127.0.0.1:{web.port}"]), timeout_s=0.2)
    assert await refused(fetcher, f"{web.url}/drip") == "the page did not come within 0.2 s"
    await until(lambda: web.open_connections == 0)


async def test_a_cancelled_call_closes_its_connection(fetcher: Fetcher, web: Web) -> None:
    tasks = asyncio.all_tasks()
    call = asyncio.create_task(fetcher.get(f"{web.url}/drip"))
    await until(lambda: bool(web.seen) and web.seen[-1].url.path == "/drip")
    call.cancel()
    await asyncio.wait([call])
    await until(lambda: web.open_connections == 0)
    assert asyncio.all_tasks() <= tasks


async def test_a_host_that_is_not_there_is_told() -> None:
    names = Names()

    async def nobody(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    assert "Name or service not known" in await refused(Fetcher(AllowList(["*"]), nobody), "http://nowhere.example/")
    assert "the page cannot be fetched" in await refused(
        Fetcher(AllowList(["127.0.0.1:1"]), names), "http://127.0.0.1:1/"
    )


async def test_the_model_sees_the_tool_only_where_hosts_are_listed(web: Web) -> None:
    assert "fetch" not in Toolbox().names
    toolbox = Toolbox(fetch_allow=[f"127.0.0.1:{web.port}"])
    (spec,) = [spec for spec in toolbox.specs() if spec.name == "fetch"]
    assert f"127.0.0.1:{web.port}" in spec.description
    assert spec.parameters["required"] == ["url"]
    assert toolbox.retry_safe("fetch")

    async def call(**arguments: object) -> str:
        made = ToolCall("c1", "fetch", json.dumps(arguments))
        return await toolbox.call(made, ToolContext("a:b:c", "msg_1", "c1", TodoStore()))

    assert "# Hello" in await call(url=f"{web.url}/page")
    assert (await call(url=f"{web.url}/wide")).endswith("call again with start=20000 to read on]")
    assert await call(url="http://example.com/") == (
        f"Error: example.com:80 may not be fetched; these hosts may: 127.0.0.1:{web.port}"
    )
    assert (await call(url=5)).startswith("Error: the arguments do not fit")


def test_nothing_of_it_is_loaded_where_no_host_is_listed() -> None:
    Toolbox()
    code = "import sys, worker.tools.toolbox as t; t.Toolbox(); sys.exit('worker.tools.fetch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
