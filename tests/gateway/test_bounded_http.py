"""What strangers may do to a connection before any route sees it, over real sockets to a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import resource
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway import bounded_http
from gateway.bounded_http import (
    HEADER_TIMEOUT_S,
    LEAST_CONNECTIONS,
    MOST_HEADER_LINES,
    MOST_JOINED_BYTES,
    MOST_PIPELINED,
    BoundedProtocol,
    Connections,
    connection_limits,
)
from loadtests.gateway_process import GatewayProcess
from shared.events import Events
from tests.worker.pool.conditions import until

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@contextlib.contextmanager
def connected(gateway: GatewayProcess) -> Iterator[socket.socket]:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """Read until the gateway closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def send_what_is_taken(connection: socket.socket, data: bytes) -> None:
    """Send as much as the gateway reads."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)


@pytest.mark.parametrize(
    "header",
    [
        b"a:b\r\n" * 2_000_000, b"x: " + b"y" * 10_000_000, b"z" * 5_000_000,
        b"long: " + b"y" * 70_000 + b"\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"t: v\r\n" * 100_000,
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 500_000,
        b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 5_000_000,
    ],
    ids=["lines", "an endless value", "an endless name", "a long value", "an endless trailer", "dust", "extension"],
)  # fmt: skip
def test_a_header_that_is_too_large_is_refused_and_delays_nobody(running: GatewayProcess, header: bytes) -> None:
    with connected(running) as connection:
        send_what_is_taken(connection, GET + header)
        began = time.monotonic()
        assert running.ask("GET", "/livez").status_code == 200
        assert time.monotonic() - began < 2
        received = all_of(connection)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", received)
    assert statuses[-1] == b"431"
    if not header.startswith(b"Transfer"):
        assert statuses == [b"431"]


def test_a_header_within_the_bounds_is_served(running: GatewayProcess) -> None:
    with connected(running) as connection:
        lines = b"".join(b"x-%d: %s\r\n" % (n, b"v" * 200) for n in range(MOST_HEADER_LINES - 2))
        connection.sendall(GET + lines + b"Connection: close\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_what_is_no_http_is_refused_and_asks_for_other_protocols_are_passed_over_without_filling_the_log(
    running: GatewayProcess,
) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    before = len(running.log())
    for _ in range(20):
        for junk in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01" + b"\0" * 200, b"FOO / HTTP/1.1\r\n\r\n"):
            with connected(running) as connection:
                connection.sendall(junk)
                assert all_of(connection).startswith(b"HTTP/1.1 400 ")
        for protocol in (b"websocket", b"h2c"):
            with connected(running) as connection:
                connection.sendall(GET + upgrade % protocol)
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert len(running.log()) - before < 1000


def test_who_is_silent_or_drips_is_closed(running: GatewayProcess) -> None:
    """After the time that a header has, however often a byte comes."""
    with connected(running) as silent, connected(running) as dripping, connected(running) as late:
        began = time.monotonic()
        dripping.sendall(GET)
        late.sendall(GET + b"\r\n")
        late.recv(65_536)
        late.sendall(b"G")
        dripping.settimeout(0.5)
        closed = False
        while not closed and time.monotonic() - began < 3 * HEADER_TIMEOUT_S:
            try:
                dripping.sendall(b"x")
                closed = dripping.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed
        assert time.monotonic() - began > HEADER_TIMEOUT_S - 1
        assert all_of(silent) == b""
        assert all_of(late) == b""


SILENT = """
import resource, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
for _ in range(count):
    try:
        held.append(socket.create_connection((host, port), timeout=5))
    except OSError:
        pass
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Let what is started here have 1024 descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_descriptors")
def test_silent_connections_leave_descriptors_to_everything_else(tmp_path: Path) -> None:
    """Fifteen hundred of them: requests are answered, and a killed worker is replaced."""
    with GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"}) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        command = [sys.executable, "-c", SILENT, host, port, "1500"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
            assert crowd.stdout is not None
            assert int(crowd.stdout.readline()) > 500
            (worker,) = gateway.worker_pids()
            assert gateway.ask("POST", "/v1/workers/0/kill").status_code == 200
            gateway.wait_until(lambda: gateway.worker_pids() not in ([], [worker]), 30, "another worker")
            assert gateway.ask("GET", "/readyz").status_code == 200
            crowd.communicate(b"")


@pytest.mark.parametrize("descriptors", [256, 1024, 65_536, 1_048_576])
def test_connections_never_take_what_others_need(descriptors: int) -> None:
    room = connection_limits(workers=4, platforms=3, descriptors=descriptors)
    assert room.connections >= LEAST_CONNECTIONS
    assert room.backlog >= LEAST_CONNECTIONS
    if descriptors >= 1024:
        assert room.connections + room.backlog <= descriptors - 250


class Sink(asyncio.Transport):
    """A transport that keeps every write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_reading(self) -> bool:
        return True

    def resume_reading(self) -> None:
        """Nothing is read here."""

    def pause_reading(self) -> None:
        """Nothing is read here."""


def connection_of(*messages: dict[str, Any], connections: Connections | None = None) -> tuple[BoundedProtocol, Sink]:
    """Return a connection to an app that answers each request with these messages."""
    protocol, sink = protocol_of(*messages, connections=connections), Sink()
    protocol.connection_made(sink)
    return protocol, sink


def protocol_of(*messages: dict[str, Any], connections: Connections | None = None) -> BoundedProtocol:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    config = Config(app, log_config=None, lifespan="off", server_header=False, date_header=False)
    config.load()
    connections = connections or Connections(10, Events())
    return BoundedProtocol(connections, config, server_state=ServerState(), app_state={})


async def answered(method: str, request: bytes, *messages: dict[str, Any]) -> list[bytes]:
    """Return what an app's messages make of one request, write by write."""
    protocol, sink = connection_of(*messages)
    protocol.data_received(b"%s / HTTP/1.1\r\nhost: a\r\n%s" % (method.encode(), request))
    await asyncio.gather(*protocol.tasks)
    protocol.connection_lost(None)
    return sink.writes


def start(status: int, **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


OK = b"HTTP/1.1 200 OK\r\n"
LARGE = b"x" * (MOST_JOINED_BYTES + 1)


@pytest.mark.parametrize(
    ("method", "request_rest", "messages", "writes"),
    [
        ("GET", b"\r\n", [start(200, content_length="2"), body(b"hi")], [OK + b"content-length: 2\r\n\r\nhi"]),
        (
            "GET", b"\r\n", [start(200, content_length="2"), body(b"h", more=True), body(b"i")],
            [OK + b"content-length: 2\r\n\r\nh", b"i"],
        ),
        ("GET", b"\r\n", [start(200, content_length="0"), body(b"")], [OK + b"content-length: 0\r\n\r\n", b""]),
        ("HEAD", b"\r\n", [start(200, content_length="2"), body(b"hi")], [OK + b"content-length: 2\r\n\r\n"]),
        (
            "GET", b"\r\n", [start(200), body(b"hi", more=True), body(b"")],
            [OK + b"transfer-encoding: chunked\r\n\r\n", b"2\r\nhi\r\n", b"0\r\n\r\n"],
        ),
        (
            "GET", b"\r\n", [start(200, content_length=str(len(LARGE))), body(LARGE)],
            [OK + b"content-length: %d\r\n\r\n" % len(LARGE), LARGE],
        ),
        (
            "POST", b"expect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
            [start(200, content_length="2"), body(b"hi")],
            [b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"content-length: 2\r\n\r\nhi"],
        ),
        ("GET", b"\r\n", [start(200, content_length="2")], [OK + b"content-length: 2\r\n\r\n"]),
    ],
    ids=["whole", "in parts", "empty", "head only", "of no known length", "large", "after 100", "that broke off"],
)  # fmt: skip
async def test_the_head_of_an_answer_goes_out_with_the_first_part_of_its_body(
    method: str, request_rest: bytes, messages: list[dict[str, Any]], writes: list[bytes]
) -> None:
    assert await answered(method, request_rest, *messages) == writes


async def test_a_request_that_was_answered_is_gone_without_the_collector() -> None:
    protocol, sink = connection_of(start(200, content_length="2"), body(b"hi"))
    answered = []
    gc.disable()
    try:
        for _ in range(3):
            protocol.data_received(GET + b"\r\n")
            assert protocol.cycle is not None
            answered.append(weakref.ref(protocol.cycle))
            await asyncio.gather(*protocol.tasks)
            await asyncio.sleep(0)  # the task's own callbacks
        assert [one() is None for one in answered] == [True, True, False]
    finally:
        gc.enable()
        protocol.connection_lost(None)
    assert len(sink.writes) == 3


async def test_what_never_becomes_whole_makes_room_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is, header or body: the one that began first goes, however little it has sent of late."""
    monkeypatch.setattr(bounded_http, "MOST_UNFINISHED_BYTES", 10_000)
    connections = Connections(10, Events())
    oldest, second, third, last = (
        connection_of(start(200, content_length="2"), body(b"hi"), connections=connections) for _ in range(4)
    )
    oldest[0].data_received(GET + b"x: " + b"y" * 4_000)
    second[0].data_received(GET + b"Content-Length: 4000\r\n\r\n" + b"x" * 3_999)
    second[0].data_received(b"x")  # whole: it counts no more
    third[0].data_received(GET + b"Content-Length: 9000\r\n\r\n" + b"x" * 4_000)
    assert [sink.is_closing() for _, sink in (oldest, second, third)] == [False, False, False]
    last[0].data_received(GET + b"Content-Length: 4000\r\n\r\n" + b"x" * 3_999)
    assert [sink.is_closing() for _, sink in (oldest, second, third, last)] == [True, False, False, False]
    await asyncio.gather(*second[0].tasks)
    assert second[1].writes
    for protocol, _ in (oldest, second, third, last):
        protocol.connection_lost(None)


def test_of_a_flood_of_requests_at_once_on_one_connection_the_first_are_answered(running: GatewayProcess) -> None:
    """Each waits for the answer to the one before it, and a few bytes would become much memory."""
    with connected(running) as connection:
        send_what_is_taken(connection, (GET + b"\r\n") * 5_000)
        received = all_of(connection)
    assert received.count(b"HTTP/1.1 200 OK") >= MOST_PIPELINED
    assert received.count(b"HTTP/1.1") < 5_000
    assert received.endswith(b"connection: close\r\n\r\nok\n")


def test_two_requests_at_once_on_one_connection_are_answered_in_their_order(running: GatewayProcess) -> None:
    with connected(running) as connection:
        connection.sendall(GET + b"\r\nHEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n" + GET + b"Connection: close\r\n\r\n")
        received = all_of(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200"] * 3


@pytest.mark.parametrize(("protocol", "cut"), [(b"h2c", 0), (b"h2c", 30), (b"websocket", -60), (b"TLS/1.0, h2c", -1)])
def test_who_offers_another_protocol_is_answered_in_this_one(
    running: GatewayProcess, protocol: bytes, cut: int
) -> None:
    """As java.net.http.HttpClient sends each request: the offer, and the body at once or a moment later."""
    ask = b'{"model": "gatehouse", "messages": [{"role": "user", "content": "still here?"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: %d\r\n"
    offer = (
        b"Host: localhost\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: %s\r\nContent-Type: application/json"
    )
    request = b"\r\n\r\n".join([head % len(ask) + offer % protocol, ask])
    with connected(running) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request[:cut])
        running.ask("GET", "/livez")  # it has read the first part by now
        connection.sendall(request[cut:] + request + GET + b"Connection: close\r\n\r\n")
        received = all_of(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200"] * 3
    assert received.count(b"still here?") == 2


async def test_who_takes_nothing_of_an_answer_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A close would leave what was not read in the kernel's memory, and its client in the belief that more comes."""
    monkeypatch.setattr(bounded_http, "UNREAD_TIMEOUT_S", 0.2)
    protocol = protocol_of(start(200), *[body(b"x" * 1_000_000, more=True)] * 50, body(b""))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    async with server:
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, GET + b"\r\n")
            await until(lambda: protocol.cycle is not None and protocol.transport.is_closing(), "it is ended", 10)
            with pytest.raises(ConnectionResetError):
                await all_that_comes(client)


async def all_that_comes(client: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
        pass
