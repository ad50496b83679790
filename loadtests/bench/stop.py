"""How fast /stop ends a running turn, from the moment its webhook is posted to the commit of the turn's end.

The turn waits for the model's first byte, is in the middle of its stream, or in a tool. BENCH_ROUNDS is how often each
is stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from loadtests.gateway_process import GatewayProcess
from loadtests.measuring import percentile, print_table
from loadtests.platform import RunningPlatform, running_platform
from loadtests.provider import RunningProvider, running_provider
from loadtests.sender import Sender

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "20"))
#: the longest that a stop may take, in milliseconds
LIMIT_MS = 100.0
TURNS = {
    "first byte awaited": "[[stall]]",
    "in mid-stream": "[[dribble]]",
    "in an async tool": "[[tool sleep_on_the_loop {}]]",
    "in a sync tool": "[[tool sleep_in_a_thread {}]]",
}
#: a thread that was left behind has its worker replaced, which is no part of what is measured
FEWER_ROUNDS = {"in a sync tool": 3}
PATIENCE_S = 30.0


class Scene:
    """A gateway with two workers, and the provider that its turns ask."""

    def __init__(self, gateway: GatewayProcess, platform: RunningPlatform, provider: RunningProvider) -> None:
        self._gateway = gateway
        self._provider = provider
        self._sender = Sender(platform.secrets)
        self._client = httpx2.Client(timeout=PATIENCE_S)

    def close(self) -> None:
        """Close the connection to the gateway."""
        self._client.close()

    def stop(self, session: str, text: str) -> float:
        """Begin a turn, stop it, and return the milliseconds that took."""
        calls = self._provider.calls
        message = self._say(session, text)
        self._provider.wait_until(lambda seen: seen.calls > calls, PATIENCE_S)
        if "tool" in text:
            self._gateway.wait_until(lambda: self._tool(session) != "", PATIENCE_S, "the tool runs")
        asked_at = time.time()
        self._say(session, "/stop")
        self._gateway.wait_until(lambda: self._settled_at(message) > 0, PATIENCE_S, "the turn ends")
        return (self._settled_at(message) - asked_at) * 1000

    def _say(self, session: str, text: str) -> str:
        signed = self._sender.standard(session, text)
        answer = self._client.post(self._gateway.url + signed.path, content=signed.body, headers=signed.headers)
        answer.raise_for_status()
        return answer.headers["x-gatehouse-message"]

    def _tool(self, session: str) -> str:
        turn = self._gateway.get(f"/v1/sessions/standard%3Adefault%3A{session}")["turn"]
        return str(turn["tool"]) if turn else ""

    def _settled_at(self, message: str) -> float:
        return self._gateway.get(f"/v1/messages/{message}")["settled_at"] or 0.0


def main() -> int:
    """Print the figures; 1 if the median of one is over the limit."""
    samples: dict[str, list[float]] = {}
    with running_provider() as provider, running_platform() as platform, tempfile.TemporaryDirectory() as directory:
        settings = platform.environment() | {
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.openai_url,
            "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
            "GATEHOUSE_WORKERS": "2",
        }
        with (
            GatewayProcess(Path(directory), settings) as gateway,
            contextlib.closing(Scene(gateway, platform, provider)) as scene,
        ):
            for number, (name, text) in enumerate(TURNS.items()):
                rounds = FEWER_ROUNDS.get(name, ROUNDS)
                samples[name] = [scene.stop(f"turn{number}.{count}", text) for count in range(rounds)]
    print_table("/stop, posted to the turn's end committed", "ms", samples)
    worst = max(percentile(values, 0.5) for values in samples.values())
    print(f"\nno median over {LIMIT_MS:g} ms: {'yes' if worst <= LIMIT_MS else 'NO'}")
    return int(worst > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
