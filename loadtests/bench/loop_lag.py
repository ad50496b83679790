"""How late the gateway's loop runs its timers: idle, under load, read by pages, while its workers hang, spin and die.

The figures come from the gateway's own histogram at /metrics, which every gateway keeps always. BENCH_SECONDS is the
length of one scenario, BENCH_RATE the messages a second under load.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx2
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.program import running_program
from loadtests.sender import Sender

SECONDS = float(os.environ.get("BENCH_SECONDS", "25"))
RATE = float(os.environ.get("BENCH_RATE", "100"))
#: messages a second while workers are tormented
TALK_RATE = 20.0
TARGET_S = 0.020
KILL_EVERY_S = 0.5
METRIC = "gatehouse_loop_lag_seconds_bucket"
#: pages that read the events, and what makes about two thousand of them a second: each call of a tool is one
READERS, CALLS, CALLING_RATE = 200, 60, 30.0
MANY_CALLS = f'[[tools {CALLS} rest {{{{"seconds": 0}}}}]] number {{number}}'
SPIN = "[[tool hold_the_gil {}]]"

Histogram = dict[float, float]
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100)


class LagProbe:
    """Reads the gateway's own histogram of how late its loop runs its timers."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def lag(self) -> Histogram:
        """Return the histogram so far: how many timers were at most so late, in seconds."""
        answer = await self._client.get("/metrics")
        families = text_string_to_metric_families(answer.text)
        samples = (sample for family in families for sample in family.samples)
        return {float(sample.labels["le"]): sample.value for sample in samples if sample.name == METRIC}

    async def measure(self, scenario: Callable[[], Awaitable[None]]) -> Histogram:
        """Run a scenario and return the histogram of its time alone."""
        before = await self.lag()
        await scenario()
        return {late_s: count - before[late_s] for late_s, count in (await self.lag()).items()}


class Bench(LagProbe):
    """One gateway under one scenario after the other."""

    def __init__(self, gateway: GatewayProcess, sender: Sender, client: httpx2.AsyncClient) -> None:
        super().__init__(client)
        self._gateway = gateway
        self._sender = sender
        self._numbers = iter(range(10**9))
        self.read_bytes = 0  #: what pages have read

    async def idle(self) -> None:
        """Do nothing."""
        await asyncio.sleep(SECONDS)

    async def load(self) -> None:
        """Let many people write at once, some with tool calls and streamed answers."""
        await self._talk(RATE, "[[dribble 0.2]] number {number}")

    async def readers(self) -> None:
        """Let many pages read the events of turns that call many tools."""
        async with asyncio.TaskGroup() as pages:
            reading = [pages.create_task(self._read()) for _ in range(READERS)]
            await self._talk(CALLING_RATE, MANY_CALLS)
            for page in reading:
                page.cancel()

    async def _read(self) -> None:
        async with self._client.stream("GET", "/v1/events", timeout=None) as stream:
            async for piece in stream.aiter_raw():
                self.read_bytes += len(piece)

    async def hung(self) -> None:
        """Stop the workers with SIGSTOP, again and again; each is killed and replaced once its beat has been missed."""
        await self._torment(2.0, signal.SIGSTOP, all_of_them=True)

    async def killed(self) -> None:
        """Kill a worker twice a second."""
        await self._torment(KILL_EVERY_S, signal.SIGKILL, all_of_them=False)

    async def spinning(self) -> None:
        """Let tools hold the interpreter's lock of the workers, and burn a core each."""
        for number in range(4):
            await self._say(f"spin{number}", SPIN)
        await self._talk(TALK_RATE, "number {number}")

    async def _torment(self, every_s: float, signum: signal.Signals, *, all_of_them: bool) -> None:
        talking = asyncio.create_task(self._talk(TALK_RATE, "[[sleep 0.2]] number {number}"))
        while not talking.done():
            pids = await asyncio.to_thread(self._gateway.worker_pids)
            for pid in pids if all_of_them else pids[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            await asyncio.wait((talking,), timeout=every_s)
        await talking

    async def _talk(self, rate: float, text: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as posts:
            for count in range(int(SECONDS * rate)):
                await asyncio.sleep(max(0.0, began + count / rate - loop.time()))
                number = next(self._numbers)
                posts.create_task(self._say(f"s{number % 50}", text.format(number=number)))

    async def _say(self, session: str, text: str) -> None:
        request = self._sender.standard(session, text)
        answer = await self._client.post(request.path, content=request.body, headers=request.headers)
        answer.raise_for_status()


def quantile(histogram: Histogram, share: float) -> float:
    """Return a quantile in seconds, taken as evenly spread inside its bucket, as Prometheus does."""
    wanted = share * histogram[float("inf")]
    low_s, below = 0.0, 0.0
    for late_s, count in sorted(histogram.items()):
        if count >= wanted:
            return low_s if late_s == float("inf") else low_s + (late_s - low_s) * (wanted - below) / (count - below)
        low_s, below = late_s, count
    return low_s


def show(name: str, histogram: Histogram) -> bool:
    """Print one scenario's figures; tell whether they are within the target."""
    p50_s, p99_s = quantile(histogram, 0.50), quantile(histogram, 0.99)
    worst_s = min(late_s for late_s, count in histogram.items() if count >= histogram[float("inf")])
    samples = int(histogram[float("inf")])
    verdict = "" if p99_s < TARGET_S else f"  over {TARGET_S * 1000:.0f} ms"
    sys.stdout.write(
        f"  {name:<10} p50 {p50_s * 1000:6.2f} ms   p99 {p99_s * 1000:6.2f} ms   all within {worst_s * 1000:6.1f} ms"
        f"   {samples} samples{verdict}\n"
    )
    sys.stdout.flush()
    return p99_s < TARGET_S


@contextlib.contextmanager
def running_gateway() -> Iterator[tuple[GatewayProcess, Sender]]:
    """Run a gateway whose ladder is short, with the provider in a process of its own."""
    with (
        tempfile.TemporaryDirectory() as data_dir,
        running_platform() as platform,
        running_program("loadtests.provider") as provider,
    ):
        settings = platform.environment() | {
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.url + "/v1",
            "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
            "GATEHOUSE_WORKERS": "2",
            "GATEHOUSE_TURN_TIMEOUT": "10",
            "GATEHOUSE_KILL_GRACE": "1",
            "GATEHOUSE_HEARTBEAT_TIMEOUT": "1",
            "GATEHOUSE_INBOX_LIMIT": "1000000",
        }
        with GatewayProcess(Path(data_dir), settings) as gateway:
            yield gateway, Sender(platform.secrets)


async def measure_all(gateway: GatewayProcess, sender: Sender) -> bool:
    """Measure every scenario; tell whether all were within the target."""
    async with httpx2.AsyncClient(
        base_url=gateway.url, headers=gateway.headers, timeout=60, trust_env=False, limits=LIMITS
    ) as client:
        bench = Bench(gateway, sender, client)
        sys.stdout.write(f"\nlag of the gateway's loop, {SECONDS:g} s each, {RATE:g} messages a second under load\n")
        scenarios = (bench.idle, bench.load, bench.readers, bench.hung, bench.spinning, bench.killed)
        return all([show(scenario.__name__, await bench.measure(scenario)) for scenario in scenarios])


def main() -> int:
    """Print the table; 1 if a figure is over the target."""
    with running_gateway() as (gateway, sender):
        return 0 if uvloop.run(measure_all(gateway, sender)) else 1


if __name__ == "__main__":
    sys.exit(main())
