"""How late the gateway's loop runs its timers while many pages read a busy event stream.

BENCH_READERS pages read BENCH_EVENTS events a second for BENCH_SECONDS, each over a connection of its own, all from
another process. The figures come from the gateway's own histogram at /metrics.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import uvloop

from loadtests.bench.loop_lag import LagProbe, show
from loadtests.gateway_process import GatewayProcess

SECONDS = float(os.environ.get("BENCH_SECONDS", "25"))
READERS = int(os.environ.get("BENCH_READERS", "200"))
EVENTS = int(os.environ.get("BENCH_EVENTS", "2000"))
REQUEST = b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def read_one(host: str, port: int, opened: asyncio.Semaphore) -> int:
    """Read one stream until it ends; return its bytes."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(REQUEST)
    total = len(await reader.read(1024))
    opened.release()
    while data := await reader.read(1 << 20):
        total += len(data)
    writer.close()
    return total


async def read_all(url: str) -> None:
    """Open every reader, say so, and read until standard input ends."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
    opened = asyncio.Semaphore(0)
    readers = [asyncio.create_task(read_one(host, port, opened)) for _ in range(READERS)]
    for _ in readers:
        await opened.acquire()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def measure(gateway: GatewayProcess) -> bool:
    """Measure without readers and with them."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60, trust_env=False) as client:
        probe = LagProbe(client)

        async def wait() -> None:
            await asyncio.sleep(SECONDS)

        sys.stdout.write(f"\nlag of the gateway's loop, {EVENTS} events a second, {SECONDS:g} s each\n")
        fine = show("no reader", await probe.measure(wait))
        readers = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loadtests.bench.readers", gateway.url, stdin=PIPE, stdout=PIPE
        )
        assert readers.stdin is not None
        assert readers.stdout is not None
        await readers.stdout.readline()
        fine = show(str(READERS), await probe.measure(wait)) and fine
        readers.stdin.close()
        await readers.wait()
        return fine


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a figure is over the target. With a url: be the readers."""
    if arguments:
        uvloop.run(read_all(arguments[0]))
        return 0
    with tempfile.TemporaryDirectory() as data_dir:
        command = ("loadtests.chatty", str(EVENTS))
        with GatewayProcess(Path(data_dir), {"GATEHOUSE_WORKERS": "1"}, command) as gateway:
            return 0 if uvloop.run(measure(gateway)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
