"""Ack rate of a real gateway, durable before each 200, against a bare route that verifies and parses the same bodies.

BENCH_REQUESTS and BENCH_ROUNDS shorten or lengthen it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop

from loadtests.gateway_process import GatewayProcess
from loadtests.measuring import interleaved, percentile, pin, print_table
from loadtests.platform import platform_environment
from loadtests.program import running_program
from loadtests.raw_load import Burst, burst, wire_bytes
from loadtests.sender import Sender

CONNECTIONS = 64
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "8000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SESSIONS = 500
TEXT = "a message as people write them, " * 4


def accepting_gateway(data_dir: Path) -> GatewayProcess:
    """Return a gateway that accepts and runs nothing."""
    settings = platform_environment("http://127.0.0.1:9", Sender().secrets)
    return GatewayProcess(data_dir, settings | {"GATEHOUSE_WORKERS": "0", "GATEHOUSE_INBOX_LIMIT": "100000000"})


class Contender:
    """One server under load, with what its bursts measured."""

    def __init__(self, url: str, sender: Sender) -> None:
        self._url = url
        self._sender = sender
        self.latencies_s: list[float] = []

    async def measure(self) -> float:
        """Send one burst of fresh messages; return acks a second."""
        requests = [wire_bytes(self._sender.standard(f"s{n % SESSIONS}", TEXT)) for n in range(REQUESTS)]
        result: Burst = await burst(self._url, requests, CONNECTIONS)
        if result.failures:
            raise AssertionError(f"{result.failures} of {REQUESTS} requests to {self._url} were refused")
        self.latencies_s += result.latencies_s
        return result.rate


def main() -> None:
    """Measure both and print their rates and latencies."""
    sender = Sender()
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare = stack.enter_context(running_program("loadtests.bare_route"))
        gateway = stack.enter_context(accepting_gateway(data_dir))
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        pinned = len(cores) > 1 and pin(cores[0], bare.pid) and pin(cores[0], gateway.pid) and pin(cores[1])
        contenders = {"bare route, no store": Contender(bare.url, sender), "gateway": Contender(gateway.url, sender)}
        warm = {name: contender.measure for name, contender in contenders.items()}
        uvloop.run(interleaved(1, warm))
        for contender in contenders.values():
            contender.latencies_s.clear()
        rates = uvloop.run(interleaved(ROUNDS, warm))
    where = "one core each" if pinned else "not pinned"
    print_table(f"acks a second: {CONNECTIONS} connections, {where}, {ROUNDS} rounds of {REQUESTS}", "req/s", rates)
    for share in (0.50, 0.99):
        latencies = {name: [percentile(c.latencies_s, share) * 1000] for name, c in contenders.items()}
        print_table(f"time to the ack, p{share * 100:.0f}", "ms", latencies)


if __name__ == "__main__":
    main()
