"""Memory of the gateway and its workers after many offline turns, against a tenth of them, or 10,000.

People come, talk for a while and go. No worker is replaced, and the cache of conversations is small, so that it is
full at the first look: what grows after it is not given back. ``--turns`` or BENCH_TURNS say how many turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import msgspec
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from loadtests.gateway_process import GatewayProcess
from loadtests.measuring import MISSING, may_see_workers, pss_bytes
from loadtests.platform import platform_environment
from loadtests.program import running_program
from loadtests.raw_load import burst, wire_bytes
from loadtests.sender import Sender

CONNECTIONS = 16
#: conversations that go on at the same time, and how many turns each of them has
CROWD = 100
TURNS_EACH = 20
#: conversations that a worker caches
CACHE_SIZE = 100
#: messages sent before the replies to all of them are waited for; the inbox holds as many
BATCH = 1000
#: turns after which workers have the size that they keep; a shorter run takes half of its own
SETTLED_TURNS = 10_000
#: how much more memory may be used after all turns than at the first look
GROWTH_LIMIT = 0.10
MIB = 1024 * 1024
SENT = "gatehouse_reply_seconds_count"


class Memory(msgspec.Struct, frozen=True):
    """Proportional set sizes in bytes: of the gateway, and of all its workers together."""

    gateway: int
    workers: int


class Soak:
    """One gateway that many people write to, over and over."""

    def __init__(self, gateway: GatewayProcess, client: httpx2.AsyncClient) -> None:
        self._gateway = gateway
        self._client = client
        self._sender = Sender()
        self.turns = 0

    async def run_until(self, turns: int) -> None:
        """Send messages until so many turns have been answered in all."""
        while self.turns < turns:
            count = min(BATCH, turns - self.turns)
            numbers = range(self.turns, self.turns + count)
            requests = [self._sender.standard(session_of(n), f"message {n}") for n in numbers]
            result = await burst(self._gateway.url, [wire_bytes(request) for request in requests], CONNECTIONS)
            assert result.failures == 0, f"{result.failures} webhooks were refused"
            self.turns += count
            while await self._answered() < self.turns:  # noqa: ASYNC110 - another process answers
                await asyncio.sleep(0.02)

    async def memory(self) -> Memory:
        """Measure; the gateway and its workers rest."""
        workers = await asyncio.to_thread(self._gateway.worker_pids)
        return Memory(pss_bytes(self._gateway.pid), sum(pss_bytes(pid) for pid in workers))

    async def _answered(self) -> int:
        answer = await self._client.get("/metrics")
        samples = (one for family in text_string_to_metric_families(answer.text) for one in family.samples)
        return int(sum(sample.value for sample in samples if sample.name == SENT))


@contextmanager
def running_gateway(data_dir: Path) -> Iterator[GatewayProcess]:
    """Run a gateway on the offline model that keeps its workers, and whose replies go to a process of their own."""
    with running_program("loadtests.platform") as platform:
        settings = platform_environment(platform.url, Sender().secrets)
        settings |= {
            "GATEHOUSE_WORKERS": "2",
            "GATEHOUSE_WORKER_TURNS": "1000000000",
            "GATEHOUSE_TODO_CACHE_SIZE": str(CACHE_SIZE),
        }
        with GatewayProcess(data_dir, settings) as gateway:
            yield gateway


async def measure(gateway: GatewayProcess, turns: int) -> bool:
    """Print both figures; tell whether neither grew too much."""
    async with httpx2.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60, trust_env=False) as client:
        soak = Soak(gateway, client)
        pids = set(gateway.worker_pids())
        print(f"\nmemory (PSS) after offline turns, {CROWD} conversations at a time, two workers", flush=True)
        found = []
        for count in (max(turns // 10, min(turns // 2, SETTLED_TURNS)), turns):
            began = time.perf_counter()
            before = soak.turns
            await soak.run_until(count)
            rate = (count - before) / (time.perf_counter() - began)
            found.append(await soak.memory())
            print(f"  {count:>9,} turns  {shown(found[-1])}  {rate:6.0f} turns/s", flush=True)
        assert pids == set(gateway.worker_pids()), "a worker was replaced"
    first, last = found
    grown = {name: getattr(last, name) / getattr(first, name) - 1 for name in first.__struct_fields__}
    verdict = "" if max(grown.values()) <= GROWTH_LIMIT else f"  over {GROWTH_LIMIT:.0%}"
    print("  growth  " + "  ".join(f"{name} {share:+.1%}" for name, share in grown.items()) + verdict)
    return not verdict


def session_of(number: int) -> str:
    """Return the conversation that the message of this number belongs to."""
    return f"s{number // (CROWD * TURNS_EACH)}.{number % CROWD}"


def shown(memory: Memory) -> str:
    """Write one line's figures."""
    return f"gateway {memory.gateway / MIB:7.1f} MiB  workers {memory.workers / MIB:7.1f} MiB"


def main() -> int:
    """Measure; 1 if memory grew by more than the limit, MISSING where nobody may know."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.soak")
    parser.add_argument("--turns", type=int, default=int(os.environ.get("BENCH_TURNS", "100000")))
    asked = parser.parse_args()
    if not may_see_workers("soak"):
        return MISSING
    with tempfile.TemporaryDirectory() as data_dir, running_gateway(Path(data_dir)) as gateway:
        return 0 if uvloop.run(measure(gateway, asked.turns)) else 1


if __name__ == "__main__":
    sys.exit(main())
