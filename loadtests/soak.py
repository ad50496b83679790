"""``python -m loadtests.soak --minutes 30``: people write at a steady rate while things fail, and memory is watched.

Every fault comes again and again: a worker killed, a model call that hangs, an error of the provider, a platform that
answers 500, 429 or not at all. Each message has to be answered. The slope of the memory is fitted to the second half
of the run, where caches are full. The exit status is 1 where a message was lost or memory grew faster than the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx2
import msgspec
import uvloop

from loadtests.gateway_process import ROOT, GatewayProcess
from loadtests.measuring import percentile, pss_bytes
from loadtests.platform import RunningPlatform, running_platform
from loadtests.platform_wire import Fault
from loadtests.program import running_program
from loadtests.sender import Sender

RESULTS = ROOT / "loadtests" / "results" / "soak.json"
MIB = 1024 * 1024
LIMIT_MIB_AN_HOUR = 8.0
#: conversations that go on at once, and messages until each is replaced by a new one
CROWD, MESSAGES_EACH = 50, 20
#: seconds between two looks at the memory, and between two faults
SAMPLE_S, FAULT_S = 10.0, 15.0
#: how long the last answers may take: what a hung model call and a silent platform cost
DRAINED_WITHIN_S = 240.0
#: what the provider does for one message in fifty
DIRECTIVES = ("[[stall]]", "[[status 529 times=1]]", "[[reset times=1]]", "[[sleep 2]]", "[[long 20000]]")
PLATFORM_FAULTS = (Fault(status=500), Fault(status=429, retry_after_s=1), Fault(reset=True), Fault(stall=True))


class MemorySample(msgspec.Struct, frozen=True):
    """Proportional set sizes at one moment, in MiB."""

    at_s: float  #: since the run began
    gateway: float
    workers: float  #: of all together


class SoakResult(msgspec.Struct, frozen=True):
    """What one run found."""

    seconds: float
    sent: int
    answered: int
    faults: dict[str, int]
    slope_mib_an_hour: float  #: of gateway and workers together, in the second half
    gateway_slope_mib_an_hour: float
    ack_p99_ms: float
    samples: list[MemorySample]


class Soak:
    """One gateway, the people who write to it, and what befalls it."""

    def __init__(self, gateway: GatewayProcess, platform: RunningPlatform, seed: int) -> None:
        self._gateway = gateway
        self._platform = platform
        self._random = random.Random(seed)
        self._sender = Sender(platform.secrets)
        self._numbers = itertools.count()
        self._sent: set[str] = set()
        self._acks_s: list[float] = []
        self._faults: Counter[str] = Counter()
        self._samples: list[MemorySample] = []
        self._began = time.monotonic()

    async def run(self, seconds: float, rate: float) -> SoakResult:
        """Write ``rate`` messages a second for so long, then wait for the answers."""
        http = httpx2.AsyncClient(base_url=self._gateway.url, trust_env=False, timeout=30)
        async with http, asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._fail()), tasks.create_task(self._measure())]
            await self._write(http, seconds, rate)
            for task in beside:
                task.cancel()
        answered = await self._drained()
        half = [sample for sample in self._samples if sample.at_s >= seconds / 2]
        return SoakResult(
            time.monotonic() - self._began,
            len(self._sent),
            answered,
            dict(self._faults),
            slope(half, lambda one: one.gateway + one.workers),
            slope(half, lambda one: one.gateway),
            percentile(self._acks_s, 0.99) * 1e3,
            self._samples,
        )

    async def _write(self, http: httpx2.AsyncClient, seconds: float, rate: float) -> None:
        """Send messages on time, however long the gateway takes for one."""
        async with asyncio.TaskGroup() as posts:
            for number in itertools.count():
                due = self._began + number / rate
                if due >= self._began + seconds:
                    return
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                posts.create_task(self._post(http))

    async def _post(self, http: httpx2.AsyncClient) -> None:
        number = next(self._numbers)
        session = f"s{number // (CROWD * MESSAGES_EACH)}.{number % CROWD}"
        text = f"message {number}"
        if self._random.random() < 1 / 50:
            directive = self._random.choice(DIRECTIVES)
            self._faults[f"model {directive}"] += 1
            text += f" {directive}"
        request = self._sender.standard(session, text, f"person-{number % CROWD}")
        began = time.perf_counter()
        answer = await http.post(request.path, content=request.body, headers=request.headers)
        answer.raise_for_status()
        self._acks_s.append(time.perf_counter() - began)
        self._sent.add(answer.headers["x-gatehouse-message"])

    async def _fail(self) -> None:
        for number in itertools.count():
            await asyncio.sleep(FAULT_S)
            if number % 2:
                fault = self._random.choice(PLATFORM_FAULTS)
                self._platform.script("standard", fault)
                self._faults[f"platform {fault.status or ('reset' if fault.reset else 'stall')}"] += 1
                continue
            workers = await asyncio.to_thread(self._gateway.worker_pids)
            if workers:
                os.kill(self._random.choice(sorted(workers)), signal.SIGKILL)
                self._faults["worker killed"] += 1

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            workers = await asyncio.to_thread(self._gateway.worker_pids)
            sizes = [size for pid in workers if (size := size_of(pid))]
            sample = MemorySample(time.monotonic() - self._began, pss_bytes(self._gateway.pid) / MIB, sum(sizes) / MIB)
            self._samples.append(sample)
            print(
                f"{sample.at_s:6.0f} s  gateway {sample.gateway:6.1f} MiB  workers {sample.workers:6.1f} MiB"
                f"  {len(self._sent)} sent",
                flush=True,
            )

    async def _drained(self) -> int:
        """Wait for the answers to what was sent; count the messages that have one."""
        deadline = time.monotonic() + DRAINED_WITHIN_S
        while True:
            answered = {reply.key.partition(".")[0] for reply in self._platform.received("standard")}
            if self._sent <= answered or time.monotonic() > deadline:
                return len(self._sent & answered)
            await asyncio.sleep(0.5)


def size_of(pid: int) -> int:
    """Return a process's memory, 0 for one that is gone."""
    try:
        return pss_bytes(pid)
    except (OSError, ProcessLookupError):
        return 0


def slope(samples: list[MemorySample], value: Callable[[MemorySample], float]) -> float:
    """Return the slope of a line through samples, in MiB an hour; 0 where there are not enough."""
    if len(samples) < 3:
        return 0.0
    times = [sample.at_s / 3600 for sample in samples]
    return statistics.linear_regression(times, [value(sample) for sample in samples]).slope


def main() -> int:
    """Run, print and keep the result."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second (default 20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with ExitStack() as stack:
        provider = stack.enter_context(running_program("loadtests.provider"))
        platform = stack.enter_context(running_platform())
        settings = platform.environment() | {
            "GATEHOUSE_WORKERS": "2",
            "GATEHOUSE_MODEL": "openai:m",
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "GATEHOUSE_STALL_TIMEOUT": "3",
            "GATEHOUSE_TURN_TIMEOUT": "30",
            "GATEHOUSE_TODO_CACHE_SIZE": "100",
        }
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway = stack.enter_context(GatewayProcess(data_dir, settings))
        result = uvloop.run(Soak(gateway, platform, asked.seed).run(asked.minutes * 60, asked.rate))
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    asked.results.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    print(
        f"\n{result.sent} messages in {result.seconds / 60:.0f} minutes, {result.answered} answered; acks' 99th"
        f" percentile {result.ack_p99_ms:.0f} ms\nfaults: {result.faults}\nmemory of the second half:"
        f" {result.slope_mib_an_hour:+.1f} MiB an hour in all, {result.gateway_slope_mib_an_hour:+.1f} the gateway"
        f" (limit {LIMIT_MIB_AN_HOUR:g})\n{asked.results}"
    )
    grew = max(result.slope_mib_an_hour, result.gateway_slope_mib_an_hour) > LIMIT_MIB_AN_HOUR
    return 1 if grew or result.answered < result.sent else 0


if __name__ == "__main__":
    sys.exit(main())
