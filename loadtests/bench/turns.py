"""Turns through everything, from webhook to delivered reply, beside OpenAI's SDK alone calling the same provider.

The provider answers at once, over HTTP, in a process of its own; one worker, and one process of the SDK. BENCH_MESSAGES
and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvloop

from loadtests.bench.cost import CLIENTS, MESSAGES, ROUNDS, Contender, Replies, gateway_for
from loadtests.gateway_process import ROOT
from loadtests.loopback import Loopback
from loadtests.measuring import Samples, noted, print_table, warm_rounds
from loadtests.program import running_program


class SdkAlone:
    """A process that calls the provider with the SDK, and does nothing else."""

    def __init__(self, process: subprocess.Popen[str], clients: int) -> None:
        self._process = process
        self._clients = clients
        self.samples: Samples = {"p50": []}

    async def measure(self) -> float:
        """Return answers a second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        each = MESSAGES if self._clients == 1 else max(4, 2 * MESSAGES // self._clients)
        self._process.stdin.write(f"{self._clients} {each}\n")
        self._process.stdin.flush()
        rate, p50_ms = map(float, self._process.stdout.readline().split())
        self.samples["p50"].append(p50_ms)
        return rate


@contextmanager
def sdk_process(url: str) -> Iterator[subprocess.Popen[str]]:
    """Run it as long as the context is open."""
    command = [sys.executable, "-m", "loadtests.sdk_client", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def main() -> None:
    """Measure and print."""
    with ExitStack() as stack:
        replies = Replies()
        receiver = stack.enter_context(Loopback(replies.app()).in_thread()).url
        provider = stack.enter_context(running_program("loadtests.provider"))
        url = f"{provider.url}/v1"
        openai = {"GATEHOUSE_MODEL": "openai:m", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url}
        gateway = gateway_for(stack, receiver, openai)
        sdk = stack.enter_context(sdk_process(url))
        for clients in CLIENTS:
            sides: dict[str, SdkAlone | Contender] = {
                "the SDK alone": SdkAlone(sdk, clients),
                "webhook to reply": Contender(gateway, replies, clients),
            }
            rates = uvloop.run(warm_rounds(ROUNDS, sides))
            at_once = f"{clients} client{'s' * (clients > 1)}"
            print_table(f"turns a second, {at_once}, {ROUNDS} rounds", "/s", rates)
            print_table(f"time of a turn, {at_once}, p50", "ms", noted(sides, "p50"))


if __name__ == "__main__":
    main()
