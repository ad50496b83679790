"""The server process: binds, opens, listens, and ends within its time on a signal, whatever hangs.

SIGTERM or SIGINT once: drain and end with status 0. Twice: at once. The listener stays open while turns drain, so that
``/readyz`` can say 503 and webhooks are still kept; it closes before the last replies are sent.
SIGHUP: every worker is replaced, one at a time, with the code and tools that lie on disk now; the gateway's own stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import uvicorn
import uvloop

from gateway.app import Gateway
from gateway.bounded_http import BoundedProtocol, Connections, connection_limits
from gateway.start_report import tell_start
from shared.errors import SettingsError, StoreUnavailable, StoreUnusable
from shared.events import Event, LogWriter
from shared.opening import opened_before
from shared.settings import Settings
from shared.version import SERVER_NAME

SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: seconds from the first signal until the process is gone, even if something it waits for never ends
HARD_END_S = 23.0
CONNECTIONS_END_S = 2

#: new objects before a collection of the young, and collections of one generation before one of the next
COLLECTION_THRESHOLDS = (50_000, 20, 10)


class CannotStart(Exception):
    """Raised when the gateway cannot start; its text is the one line for the user."""


class Server(uvicorn.Server):
    """Uvicorn's server with this project's signals and its order of stopping."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, log: LogWriter) -> None:
        super().__init__(config)
        self.broken: BaseException | None = None
        self._gateway = gateway
        self._log = log
        self._hasten = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to ``on_signal``: uvicorn would raise them again after its end, and the status be 143."""
        yield

    def on_signal(self) -> None:
        """Begin to stop; the second time, stop at once."""
        if self.should_exit:
            self._hasten.set()
            self.force_exit = True
            return
        self.should_exit = True
        hard_end = threading.Timer(HARD_END_S, self._end_hard)
        hard_end.daemon = True
        hard_end.start()
        self._gateway.refuse_work()

    def start_gateway(self, opening: asyncio.Task[None]) -> None:
        """Start the parts in the background: the first workers take seconds, webhooks are accepted meanwhile."""
        self._starting = asyncio.create_task(self._start(opening), name="start of the parts")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        tell_start(self._gateway.events.emit, self._gateway.settings, url, host, port, os.getpid())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the turns, close the listener and the connections, close the gateway."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._gateway.opening.done:
            await self._gateway.drain(self._hasten)
        await super().shutdown(sockets)
        if self._gateway.opening.done:
            await self._gateway.close(self._hasten)
        else:
            await self._gateway.store.close()
        self._gateway.events.emit(Event.STOPPED)

    async def _start(self, opening: asyncio.Task[None]) -> None:
        try:
            await opening
            await self._gateway.start()
        except Exception as error:  # noqa: BLE001 - a part that cannot run ends the process with one line that says it
            self.broken = error
            if not self.should_exit:
                self.on_signal()

    def _end_hard(self) -> None:
        """End now, from a thread of its own: nothing accepted is lost, its claims run again at the next start."""
        self._gateway.events.emit(Event.STOPPED, hard=True)
        self._log.stop()
        os._exit(1)


def serve(settings: Settings, log: LogWriter, compose: Callable[[Settings], Gateway] = Gateway) -> None:
    """Run the gateway that ``compose`` builds until a signal ends it. Raises CannotStart."""
    listener = bind(settings.host, settings.port)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, log, listener, compose))


async def run(
    settings: Settings, log: LogWriter, listener: socket.socket, compose: Callable[[Settings], Gateway]
) -> None:
    """Open, serve and close one gateway."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what it tells below that, events tell better
    gateway = compose(settings)
    room = connection_limits(settings.workers + settings.spares, len(gateway.platforms))
    server = Server(uvicorn_config(gateway, Connections(room.connections, gateway.events)), gateway, log)
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, server.on_signal)
    loop.add_signal_handler(signal.SIGHUP, gateway.pool.renew)
    opening = asyncio.create_task(open_gateway(gateway), name="open the store")
    await opened_before(opening, gateway.opening.takes_time)
    try:
        listen(listener, room.backlog)
    except CannotStart:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await gateway.store.close()
        raise
    server.start_gateway(opening)
    spare_collections()
    await server.serve([listener])
    for number in SIGNALS:  # everything is done; one more signal must not spoil the exit status
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    if isinstance(server.broken, CannotStart):
        raise server.broken
    if server.broken is not None:
        raise CannotStart(f"the workers cannot be started: {server.broken}")


async def open_gateway(gateway: Gateway) -> None:
    """Open one. Raises CannotStart."""
    try:
        await gateway.open()
    except (StoreUnusable, StoreUnavailable) as error:
        setting = "DATABASE_URL" if gateway.settings.database_url else "GATEHOUSE_DATA_DIR"
        raise CannotStart(f"the message store cannot be opened: {error} ({setting} says where it lies)") from None


def spare_collections() -> None:
    """Let the collector pass over what lives as long as the process, and look more rarely at what is new.

    A request leaves few cycles or none, so that a collection for each 700 objects finds little and costs a tenth of an
    accepted message's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)


def uvicorn_config(gateway: Gateway, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        gateway.app,
        http=cast(type[asyncio.Protocol], partial(BoundedProtocol, connections)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("server", SERVER_NAME)],
        timeout_graceful_shutdown=CONNECTIONS_END_S,
    )


def bind(host: str, port: int) -> socket.socket:
    """Take the address without listening yet. Raises CannotStart, and SettingsError for a host that is not ours."""
    try:
        family, kind, protocol, _, address = min(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), key=lambda found: found[0] != socket.AF_INET
        )
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (socket.gaierror, UnicodeError):
        raise SettingsError("GATEHOUSE_HOST", f"{host!r} is not the name or address of a machine") from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError("GATEHOUSE_HOST", f"{host!r} is not an address of this machine") from None
        raise CannotStart(cannot_listen(host, port, error)) from None
    return listener


def listen(listener: socket.socket, backlog: int) -> None:
    """Begin to listen. Raises CannotStart."""
    try:
        listener.listen(backlog)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise CannotStart(cannot_listen(host, port, error)) from None


def cannot_listen(host: str, port: int, error: OSError) -> str:
    return f"cannot listen on {host} port {port}: {error.strerror or error}; set PORT to another one"
