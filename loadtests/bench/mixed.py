"""What a healthy turn pays for others that hang: 500 sessions, a provider of 0.2 to 5 s, with and without faults.

With faults one call in a hundred hangs and one dribbles without end. What is compared is the time from a webhook to
its reply beyond what its own model call took, of messages without a fault. BENCH_SESSIONS and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from contextlib import ExitStack

import httpx2
import uvloop

from loadtests.bench.cost import Replies, gateway_for
from loadtests.gateway_process import GatewayProcess
from loadtests.loopback import Loopback
from loadtests.measuring import Samples, interleaved, noted, percentile, print_table
from loadtests.program import running_program
from loadtests.sender import Sender

SESSIONS = int(os.environ.get("BENCH_SESSIONS", "500"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
#: the messages of a round come within so many seconds
SPREAD_S = 5.0
PATIENCE_S = 60.0
#: one in so many hangs, and one dribbles
EVERY = 100


class Crowd:
    """Everybody writes once a round; some of them, with ``faults``, to a provider that does not answer."""

    def __init__(self, gateway: GatewayProcess, replies: Replies, *, faults: bool) -> None:
        self._gateway = gateway
        self._replies = replies
        self._sender = Sender()
        self._faults = faults
        self._rounds = itertools.count()
        self.samples: Samples = {"p50": [], "p99, the model call too": []}

    async def measure(self) -> float:
        """Return the 99th percentile of what was waited for beyond the model call, in milliseconds."""
        # the same waits on both sides, round by round
        number = next(self._rounds)
        numbers = random.Random(number)
        async with httpx2.AsyncClient(base_url=self._gateway.url, trust_env=False, timeout=PATIENCE_S) as http:
            talks = []
            for person in range(SESSIONS):
                model_s, later_s = numbers.uniform(0.2, 5.0), numbers.uniform(0.0, SPREAD_S)
                talks.append(self._talk(http, f"{number}-{person}", person, model_s, later_s))
            waited = [one for one in await asyncio.gather(*talks) if one is not None]
        beyond = [total_s - model_s for total_s, model_s in waited]
        self.samples["p50"].append(percentile(beyond, 0.5) * 1e3)
        self.samples["p99, the model call too"].append(percentile([total_s for total_s, _ in waited], 0.99) * 1e3)
        return percentile(beyond, 0.99) * 1e3

    async def _talk(
        self, http: httpx2.AsyncClient, session: str, person: int, model_s: float, later_s: float
    ) -> tuple[float, float] | None:
        """Write once; return how long it took in all and in the model, None for a message with a fault."""
        fault = {0: " [[stall]]", EVERY // 2: " [[dribble 1]]"}.get(person % EVERY) if self._faults else None
        await asyncio.sleep(later_s)
        request = self._sender.standard(session, f"hello [[sleep {model_s:.3f}]]" if fault is None else f"hello{fault}")
        replied = self._replies.expect(session)
        began = time.perf_counter()
        (await http.post(request.path, content=request.body, headers=request.headers)).raise_for_status()
        await asyncio.wait_for(replied, PATIENCE_S)
        return None if fault else (time.perf_counter() - began, model_s)


def main() -> None:
    """Measure and print."""
    with ExitStack() as stack:
        replies = Replies()
        receiver = stack.enter_context(Loopback(replies.app()).in_thread()).url
        provider = stack.enter_context(running_program("loadtests.provider"))
        settings = {
            "GATEHOUSE_MODEL": "openai:m",
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "GATEHOUSE_WAITING_TURNS": "1000",
            "GATEHOUSE_STALL_TIMEOUT": "2",
            "GATEHOUSE_API_TIMEOUT": "6",
            "GATEHOUSE_TURN_TIMEOUT": "8",
        }
        sides = {
            name: Crowd(gateway_for(stack, receiver, settings), replies, faults=faults)
            for name, faults in (("no faults", False), ("1 % hang, 1 % dribble", True))
        }
        measures = {name: side.measure for name, side in sides.items()}
        beyond = uvloop.run(interleaved(ROUNDS, measures))
    print_table(f"{SESSIONS} sessions: wait beyond the model call, p99, {ROUNDS} rounds", "ms", beyond)
    for what in ("p50", "p99, the model call too"):
        print_table(f"the same, {what}", "ms", noted(sides, what))


if __name__ == "__main__":
    main()
