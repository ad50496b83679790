"""What a hang, and a SIGKILL of a worker, cost the turns beside it.

A hang is over for its neighbours when the last of them has asked the model again; a kill is, when every turn of the
worker has. Both start from a worker whose turns wait for the model, with a spare ready. BENCH_ROUNDS is how often a
worker is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import RunningPlatform, running_platform
from loadtests.provider import RunningProvider, running_provider
from loadtests.sender import Sender

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DEADLINE_S = 4.0
GRACE_S = 1.0
#: the longest that a hang may hold up its neighbours, and that a killed worker's turns may stand still, in seconds
HANG_LIMIT_S = DEADLINE_S + GRACE_S + 1.0
KILL_LIMIT_S = 0.3
HANGS = {
    "a thread sleeps": "sleep_in_a_thread",
    "the loop is blocked": "block_the_loop",
    "the GIL is held": "hold_the_gil",
}
NEIGHBOURS = 6
PATIENCE_S = 30.0


class Scene:
    """One gateway with one worker and a spare, and the provider that its turns ask."""

    def __init__(self, gateway: GatewayProcess, platform: RunningPlatform, provider: RunningProvider) -> None:
        self._gateway = gateway
        self._platform = platform
        self._provider = provider
        self._sender = Sender(platform.secrets)
        self._rounds = 0

    def hang(self, tool: str) -> tuple[float, float]:
        """Return the seconds from a hang to the last neighbour's next model call, and until its sender is told."""
        names = self._begin('[[sleep 1]] [[tool rest {"seconds": 0}]] [[then]] [[sleep 0.5]] [[say on]]')
        culprit = f"culprit{self._rounds}"
        self._say(culprit, f"[[tool {tool} {{}}]]")
        self._until(lambda: bool(self._calls(culprit)), "the culprit runs")
        began = self._calls(culprit)[0]
        self._until(lambda: all(self._replied_at(name) for name in (*names, culprit)), "every reply")
        return self._resumed(names, began)[-1] - began, self._replied_at(culprit) - began

    def kill(self) -> tuple[float, float]:
        """Return the seconds from the SIGKILL of the worker to the first, and to the last of its turns' model calls."""
        names = self._begin("[[sleep 2]] [[say on]]")
        (worker,) = self._gateway.worker_pids()
        killed_at = time.time()
        os.kill(worker, signal.SIGKILL)
        self._until(lambda: all(self._replied_at(name) for name in names), "every reply")
        resumed = self._resumed(names, killed_at)
        return resumed[0] - killed_at, resumed[-1] - killed_at

    def _begin(self, text: str) -> list[str]:
        """Start the neighbours' turns once worker and spare are ready; return their sessions."""
        self._until(self._is_whole, "one worker and a spare")
        self._rounds += 1
        names = [f"neighbour{self._rounds}.{number}" for number in range(NEIGHBOURS)]
        for name in names:
            self._say(name, text)
        self._until(lambda: all(self._calls(name) for name in names), "the neighbours run")
        return names

    def _is_whole(self) -> bool:
        table = self._gateway.get("/v1/workers")
        return [row["state"] for row in table["workers"]] == ["ready"] and table["spares"] == 1

    def _say(self, session: str, text: str) -> None:
        request = self._sender.standard(session, f"{text} {session};")
        answer = httpx2.post(self._gateway.url + request.path, content=request.body, headers=request.headers)
        answer.raise_for_status()

    def _calls(self, session: str) -> list[float]:
        """Return when the turns of a session asked the model, in unix seconds."""
        return [call.at for call in self._provider.requests if f" {session};" in call.asked.text]

    def _resumed(self, sessions: list[str], after: float) -> list[float]:
        """Return when each session first asked the model after a time, earliest first."""
        return sorted(next(at for at in self._calls(session) if at > after) for session in sessions)

    def _replied_at(self, session: str) -> float:
        replies = self._platform.received("standard", session)
        return replies[0].at if replies else 0.0

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        self._gateway.wait_until(condition, PATIENCE_S, what)


@contextmanager
def running_scene() -> Iterator[Scene]:
    """Run a gateway whose turns end soon."""
    with (
        tempfile.TemporaryDirectory() as data_dir,
        running_platform() as platform,
        running_provider() as provider,
    ):
        settings = platform.environment() | {
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.openai_url,
            "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_TURN_TIMEOUT": str(DEADLINE_S),
            "GATEHOUSE_KILL_GRACE": str(GRACE_S),
            "GATEHOUSE_MAX_ATTEMPTS": "3",
        }
        with GatewayProcess(Path(data_dir), settings) as gateway:
            yield Scene(gateway, platform, provider)


def show(what: str, first: str, first_s: float, second: str, second_s: float, *, held: bool) -> bool:
    """Print one line; tell whether it kept its limit."""
    verdict = "" if held else "  OVER THE LIMIT"
    print(f"  {what:<20} {first} {first_s:6.3f} s   {second} {second_s:6.3f} s{verdict}", flush=True)
    return held


def main() -> int:
    """Print the figures; 1 if one is over its limit."""
    held = []
    with running_scene() as scene:
        print(f"\na hang beside {NEIGHBOURS} turns; deadline {DEADLINE_S:g} s, grace {GRACE_S:g} s: ", end="")
        print(f"neighbours go on within {HANG_LIMIT_S:g} s", flush=True)
        for what, tool in HANGS.items():
            neighbours_s, told_s = scene.hang(tool)
            line = ("neighbours go on after", neighbours_s, "its sender is told after", told_s)
            held.append(show(what, *line, held=neighbours_s <= HANG_LIMIT_S))
        print(f"\nSIGKILL of a worker with {NEIGHBOURS} turns: they run again within {KILL_LIMIT_S:g} s", flush=True)
        for number in range(ROUNDS):
            first_s, last_s = scene.kill()
            held.append(
                show(f"kill {number + 1}", "first after", first_s, "last after", last_s, held=last_s <= KILL_LIMIT_S)
            )
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
