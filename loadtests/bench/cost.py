"""What one message costs from its webhook to its delivered reply: CPU of gateway and worker, work of the store.

Clients send their next message once the reply to the last one has come. The CPU is the kernel's count for each process
alone, so it does not grow because other processes are busy. BENCH_MESSAGES and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loadtests.gateway_process import GatewayProcess, descendants
from loadtests.loopback import Loopback
from loadtests.measuring import Samples, cpu_s, noted, percentile, print_table, warm_rounds
from loadtests.platform import platform_environment
from loadtests.program import running_program
from loadtests.sender import Sender
from loadtests.traced.store_traffic import NAME

#: of one client; many clients send twice as many in all, and at least four each
MESSAGES = int(os.environ.get("BENCH_MESSAGES", "64"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CLIENTS = (1, 32)
PATIENCE_S = 60.0
#: of the store, a message: what it was asked to do, and its commits, those that had to reach the disk apart
COUNTED = ("jobs", "statements", "commits", "synced")


class Replies:
    """Where replies are posted; each session waits for its own."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def app(self) -> Starlette:
        """Return the receiver as an application."""
        return Starlette(routes=[Route("/standard", self._take, methods=["POST"])])

    def expect(self, session: str) -> asyncio.Future[None]:
        """Return what is done once the next reply to a session has come."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[session] = future
        return future

    async def _take(self, request: Request) -> Response:
        reply = msgspec.json.decode(await request.body())
        if waiting := self._waiting.pop(reply["session"], None):
            waiting.get_loop().call_soon_threadsafe(waiting.set_result, None)
        return Response()


class Contender:
    """A gateway under so many clients, with what its rounds measured; the CPU in ms a message."""

    def __init__(self, gateway: GatewayProcess, replies: Replies, clients: int) -> None:
        self.clients = clients
        self.samples: Samples = {name: [] for name in ("gateway", "workers", "p50", *COUNTED)}
        self.counted = False
        self._gateway = gateway
        self._replies = replies
        self._sender = Sender()
        self._rounds = itertools.count()

    async def measure(self) -> float:
        """Let the clients send their messages; return messages a second."""
        each = MESSAGES if self.clients == 1 else max(4, 2 * MESSAGES // self.clients)
        workers = descendants(self._gateway.pid)
        cpu = [cpu_s(self._gateway.pid), sum(map(cpu_s, workers))]
        counts = await self._counts()
        began, number = time.perf_counter(), next(self._rounds)
        async with httpx2.AsyncClient(base_url=self._gateway.url, trust_env=False, timeout=PATIENCE_S) as http:
            talks = [self._talk(http, f"{number}-{client}", each) for client in range(self.clients)]
            latencies_s = [latency for talk in await asyncio.gather(*talks) for latency in talk]
        elapsed_s = time.perf_counter() - began
        sent = each * self.clients
        spent = (cpu_s(self._gateway.pid) - cpu[0], sum(map(cpu_s, workers)) - cpu[1])
        self.samples["gateway"].append(spent[0] / sent * 1e3)
        self.samples["workers"].append(spent[1] / sent * 1e3)
        self.samples["p50"].append(percentile(latencies_s, 0.5) * 1e3)
        for name, count in (await self._counts()).items():
            self.samples[name].append((count - counts[name]) / sent)
        return sent / elapsed_s

    async def _talk(self, http: httpx2.AsyncClient, session: str, messages: int) -> list[float]:
        """Send messages one after the other; return the seconds from each webhook to its reply."""
        latencies_s = []
        for _ in range(messages):
            request = self._sender.standard(session, "hello")
            replied = self._replies.expect(session)
            began = time.perf_counter()
            (await http.post(request.path, content=request.body, headers=request.headers)).raise_for_status()
            await asyncio.wait_for(replied, PATIENCE_S)
            latencies_s.append(time.perf_counter() - began)
        return latencies_s

    async def _counts(self) -> dict[str, int]:
        """Return what the store was asked to do so far, where that is counted."""
        if not self.counted:
            return {}
        path = self._gateway.data_dir / NAME
        path.unlink(missing_ok=True)
        os.kill(self._gateway.pid, signal.SIGUSR2)
        await asyncio.to_thread(self._gateway.wait_until, path.exists, PATIENCE_S, "the counts are written")
        counts: dict[str, int] = json.loads(path.read_text())
        return counts


def gateway_for(stack: ExitStack, replies_url: str, model: dict[str, str], program: str = "gateway") -> GatewayProcess:
    """Start a gateway with one worker."""
    data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    settings = platform_environment(replies_url, Sender().secrets) | {"GATEHOUSE_WORKERS": "1", **model}
    return stack.enter_context(GatewayProcess(data_dir, settings, (program,)))


def main() -> None:
    """Measure and print."""
    contenders: dict[str, Contender] = {}
    with ExitStack() as stack:
        replies = Replies()
        url = stack.enter_context(Loopback(replies.app()).in_thread()).url
        provider = stack.enter_context(running_program("loadtests.provider"))
        openai = {"GATEHOUSE_MODEL": "openai:m", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider.url}/v1"}
        gateways = {
            "openai": gateway_for(stack, url, openai),
            "offline": gateway_for(stack, url, {}),
            "counted": gateway_for(stack, url, {}, "loadtests.traced.store_traffic"),
        }
        for clients, (name, gateway) in itertools.product(CLIENTS, gateways.items()):
            contender = contenders[f"{name}, {clients} client{'s' * (clients > 1)}"] = Contender(
                gateway, replies, clients
            )
            contender.counted = name == "counted"
        rates = uvloop.run(warm_rounds(ROUNDS, contenders))
    plain = {name: one for name, one in contenders.items() if not one.counted}
    for process in ("gateway", "workers"):
        print_table(f"CPU of the {process} a message, {ROUNDS} rounds", "ms", noted(plain, process))
    print_table("messages a second, webhook to reply", "/s", {name: rates[name] for name in plain})
    print_table("webhook to reply, p50", "ms", noted(plain, "p50"))
    for counted in COUNTED:
        samples = {f"{one.clients} at once": one.samples[counted] for one in contenders.values() if one.counted}
        print_table(f"{counted} of the store a message", counted, samples)


if __name__ == "__main__":
    main()
