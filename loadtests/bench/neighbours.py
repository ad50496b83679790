"""What one party costs the others: a quiet person's waits beside receivers, models, tools and senders that misbehave.

Two gateways run side by side, with the same settings, one worker and few slots. One of them has the neighbour; a person
writes to both in turn, each time in a new chat. BENCH_ROUNDS is how often; names on the command line choose scenes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2

from loadtests.gateway_process import GatewayProcess
from loadtests.measuring import percentile, print_table
from loadtests.platform import RunningPlatform, running_platform
from loadtests.provider import RunningProvider, running_provider
from loadtests.sender import Sender

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "30"))
#: slots of the one worker, and how many turns may wait beside those that run
SLOTS, WAITING = 4, 64
#: conversations behind a receiver that accepts and never answers
BEHIND_SILENT = 700
#: model calls that hang and tool calls that sleep, within what may wait; sessions of one sender, messages in each
HUNG, ASLEEP, SESSIONS, MESSAGES = 60, 60, 30, 4
#: model calls that hang, more than may wait
HUNG_PAST_THE_BOUND = 300
#: what the model takes for every answer, and for those of the busy sender, in seconds
ANSWER_S, BUSY_ANSWER_S = 0.2, 1.0
PATIENCE_S = 120.0
#: how much longer a quiet person may wait, and from the turn's end to the reply beside silent receivers
LIMIT_RATIO, LIMIT_S = 1.1, 0.5


class Quiet:
    """A person who writes now and then, to a gateway of their own or to one with neighbours."""

    def __init__(self, gateway: GatewayProcess, platform: RunningPlatform, chats: Iterator[int]) -> None:
        self.gateway = gateway
        self.sender = Sender(platform.secrets)
        self._platform = platform
        self._chats = chats
        self._client = httpx2.Client(timeout=PATIENCE_S)

    def close(self) -> None:
        """Close the connection to the gateway."""
        self._client.close()

    def post(self, text: str, chat: int, user: int | None = None) -> str:
        """Post a Telegram message; return its id."""
        signed = self.sender.telegram(chat, text, user)
        return self._send(signed.path, signed.body, signed.headers)

    def post_standard(self, session: str, text: str) -> str:
        """Post a message whose reply goes to the receiver of Standard Webhooks; return its id."""
        signed = self.sender.standard(session, text, user=session)
        return self._send(signed.path, signed.body, signed.headers)

    def wait_s(self) -> tuple[float, float]:
        """Say something in a new chat; return the seconds until its answer, and of them those behind the turn's end."""
        chat, asked_at = next(self._chats), time.time()
        message = self.post(f"[[sleep {ANSWER_S}]] [[say hello]]", chat)
        (reply,) = self._platform.wait(1, "telegram", str(chat), PATIENCE_S)
        settled_at = self.gateway.get(f"/v1/messages/{message}")["settled_at"]
        return reply.at - asked_at, reply.at - settled_at

    def _send(self, path: str, body: bytes, headers: dict[str, str]) -> str:
        answer = self._client.post(self.gateway.url + path, content=body, headers=headers)
        answer.raise_for_status()
        return str(answer.headers["x-gatehouse-message"])


def silent_receivers(quiet: Quiet, _: RunningProvider) -> None:
    """Let many conversations wait for a receiver that accepts and never answers."""
    last = [quiet.post_standard(f"silent{number}", "[[say x]]") for number in range(BEHIND_SILENT)][-1]
    quiet.gateway.wait_until(
        lambda: quiet.gateway.get(f"/v1/messages/{last}")["settled_at"] is not None, PATIENCE_S, "their turns end"
    )


def hung_models(quiet: Quiet, provider: RunningProvider) -> None:
    """Let model calls hang, many times the slots."""
    before = provider.running
    hang(quiet, HUNG)
    provider.wait_until(lambda seen: seen.running >= before + HUNG, PATIENCE_S)


def more_hung_models_than_may_wait(quiet: Quiet, _: RunningProvider) -> None:
    """Let model calls hang, several times what a worker holds."""
    for _answer in range(5):
        quiet.wait_s()
    last = hang(quiet, HUNG_PAST_THE_BOUND)
    quiet.gateway.wait_until(
        lambda: quiet.gateway.get(f"/v1/messages/{last}")["claimed_at"] is not None, PATIENCE_S, "each was tried"
    )


def hang(quiet: Quiet, count: int) -> str:
    """Post so many messages whose model call hangs; return the last one's id."""
    return [quiet.post("[[stall]]", 1_000_000 + number) for number in range(count)][-1]


def sleeping_tools(quiet: Quiet, _: RunningProvider) -> None:
    """Let tools sleep, in threads and on the loop."""
    for number in range(ASLEEP):
        tool = ("sleep_on_the_loop", "sleep_in_a_thread")[number % 2]
        quiet.post(f"[[tool {tool} {{}}]]", 2_000_000 + number)
    quiet.gateway.wait_until(lambda: running_tools(quiet) >= ASLEEP, PATIENCE_S, "all of them sleep")


def running_tools(quiet: Quiet) -> int:
    return sum(1 for turn in quiet.gateway.get("/v1/turns")["turns"] if turn["tool"])


def one_busy_sender(quiet: Quiet, _: RunningProvider) -> None:
    """Let one sender write in many sessions, much in each."""
    for _message, session in itertools.product(range(MESSAGES), range(SESSIONS)):
        quiet.post(f"[[sleep {BUSY_ANSWER_S}]] [[say busy]]", -3_000_000 - session, user=77)


SCENES: dict[str, Callable[[Quiet, RunningProvider], None]] = {
    "silent receivers": silent_receivers,
    "hung models": hung_models,
    "more hung models than may wait": more_hung_models_than_may_wait,
    "sleeping tools": sleeping_tools,
    "one busy sender": one_busy_sender,
}


@contextlib.contextmanager
def silent_url() -> Iterator[str]:
    """Listen, let connections come in, and never answer one."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/replies"


@contextlib.contextmanager
def quiet_at(
    provider: RunningProvider, platform: RunningPlatform, chats: Iterator[int], reply_url: str
) -> Iterator[Quiet]:
    """Run a gateway and a person who writes to it."""
    settings = platform.environment() | {
        "GATEHOUSE_MODEL": "openai:scripted",
        "OPENAI_BASE_URL": provider.openai_url,
        "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_TURNS_PER_WORKER": str(SLOTS),
        "GATEHOUSE_WAITING_TURNS": str(WAITING),
        "STANDARD_WEBHOOK_REPLY_URL": reply_url,
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        GatewayProcess(Path(directory), settings) as gateway,
        contextlib.closing(Quiet(gateway, platform, chats)) as quiet,
    ):
        yield quiet


def measured(begin: Callable[[Quiet, RunningProvider], None]) -> tuple[list[float], list[float], list[float]]:
    """Return the waits alone, those beside the neighbour, and of these the part behind the turn's end, in seconds."""
    alone, beside, delivered = [], [], []
    chats = itertools.count(10)
    with (
        running_provider() as provider,
        running_platform() as platform,
        silent_url() as url,
        quiet_at(provider, platform, chats, url) as own,
        quiet_at(provider, platform, chats, url) as shared,
    ):
        begin(shared, provider)
        for _ in range(ROUNDS):
            alone.append(own.wait_s()[0])
            waited_s, delivered_s = shared.wait_s()
            beside.append(waited_s)
            delivered.append(delivered_s)
    return alone, beside, delivered


def main(wanted: list[str]) -> int:
    """Print the figures; 1 if one is over its limit."""
    broken = []
    for name in wanted or SCENES:
        alone, beside, delivered = measured(SCENES[name])
        samples = {"alone": alone, f"beside {name}": beside}
        print_table(f"a quiet person's wait for an answer, {name}", "s", samples)
        ratio = statistics.median(beside) / statistics.median(alone)
        last_s = percentile(delivered, 0.99)
        print(f"  from the turn's end to the reply: {statistics.median(delivered):.3f} s, p99 {last_s:.3f} s")
        if ratio > LIMIT_RATIO or last_s > LIMIT_S:
            broken.append(name)
    told = f"NO: {', '.join(broken)}" if broken else "yes"
    print(f"\nno wait over {LIMIT_RATIO} x, no reply later than {LIMIT_S} s: {told}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
