"""``/v1/chat/completions`` beside the same client calling the provider itself, for few and many, short and long.

Both are asked for whole answers over kept connections; the provider answers at once, in a process of its own.
BENCH_MESSAGES and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from contextlib import ExitStack

import httpx2
import msgspec
import uvloop

from loadtests.bench.cost import gateway_for
from loadtests.measuring import Samples, noted, percentile, print_table, warm_rounds
from loadtests.platform import API_KEY
from loadtests.program import running_program

CALLS = int(os.environ.get("BENCH_MESSAGES", "48"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CLIENTS, HISTORIES = (1, 8, 32), (2, 100)


class Side:
    """A server under so many clients, each of whose calls has a history of so many messages."""

    def __init__(self, url: str, model: str, clients: int, history: int) -> None:
        self._url = url
        self._clients = clients
        said = [
            {"role": ("user", "assistant")[n % 2], "content": f"message {n}, as people write"} for n in range(history)
        ]
        self._messages = [*said, {"role": "user", "content": "hello"}]
        self._model = model
        self.samples: Samples = {"p50": []}

    async def measure(self) -> float:
        """Return calls a second."""
        body = msgspec.json.encode({"model": self._model, "messages": self._messages})
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        took: list[float] = []
        async with httpx2.AsyncClient(base_url=self._url, headers=headers, trust_env=False, timeout=60) as http:

            async def talk() -> None:
                for _ in range(max(4, CALLS // self._clients)):
                    began = time.perf_counter()
                    (await http.post("/v1/chat/completions", content=body)).raise_for_status()
                    took.append(time.perf_counter() - began)

            began = time.perf_counter()
            await asyncio.gather(*(talk() for _ in range(self._clients)))
            rate = len(took) / (time.perf_counter() - began)
        self.samples["p50"].append(percentile(took, 0.5) * 1e3)
        return rate


def main() -> None:
    """Measure and print."""
    with ExitStack() as stack:
        provider = stack.enter_context(running_program("loadtests.provider"))
        openai = {"GATEHOUSE_MODEL": "openai:m", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider.url}/v1"}
        gateway = gateway_for(stack, "http://127.0.0.1:9", openai)
        for history, clients in itertools.product(HISTORIES, CLIENTS):
            sides = {
                "the provider itself": Side(provider.url, "m", clients, history),
                "through the gateway": Side(gateway.url, "openai:m", clients, history),
            }
            rates = uvloop.run(warm_rounds(ROUNDS, sides))
            what = f"{clients} client{'s' * (clients > 1)}, history of {history}"
            print_table(f"calls a second, {what}, {ROUNDS} rounds", "/s", rates)
            print_table(f"time of a call, {what}, p50", "ms", noted(sides, "p50"))


if __name__ == "__main__":
    main()
