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
from loadtests.measuring import Samples, cpu_s, noted, percentile, pin, print_table, warm_rounds
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

    def __init__(self, url: str, pid: int, sender: Sender) -> None:
        self._url = url
        self._pid = pid
        self._sender = sender
        self.samples: Samples = {"CPU a message": [], "p50": [], "p99": []}

    async def measure(self) -> float:
        """Send one burst of fresh messages; return acks a second."""
        requests = [wire_bytes(self._sender.standard(f"s{n % SESSIONS}", TEXT)) for n in range(REQUESTS)]
        spent_s = cpu_s(self._pid)
        result: Burst = await burst(self._url, requests, CONNECTIONS)
        if result.failures:
            raise AssertionError(f"{result.failures} of {REQUESTS} requests to {self._url} were refused")
        self.samples["CPU a message"].append((cpu_s(self._pid) - spent_s) / REQUESTS * 1e6)
        self.samples["p50"].append(percentile(result.latencies_s, 0.50) * 1e3)
        self.samples["p99"].append(percentile(result.latencies_s, 0.99) * 1e3)
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
        contenders = {
            "bare route, no store": Contender(bare.url, bare.pid, sender),
            "gateway": Contender(gateway.url, gateway.pid, sender),
        }
        rates = uvloop.run(warm_rounds(ROUNDS, contenders))
    where = "one core each" if pinned else "not pinned"
    print_table(f"acks a second: {CONNECTIONS} connections, {where}, {ROUNDS} rounds of {REQUESTS}", "req/s", rates)
    for title, what, unit in (
        ("CPU of the server's process a message", "CPU a message", "us"),
        ("time to the ack, p50", "p50", "ms"),
        ("time to the ack, p99", "p99", "ms"),
    ):
        print_table(title, unit, noted(contenders, what))


if __name__ == "__main__":
    main()
