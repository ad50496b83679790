"""Ten times more than fits, for twenty seconds: quick 200s that are all answered, honest 503s, nothing in between."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from loadtests.measuring import percentile
from loadtests.platform import RunningPlatform
from loadtests.provider import RunningProvider
from loadtests.sender import Sender
from loadtests.signing import SignedRequest
from tests.e2e.bot import Bot
from tests.e2e.conftest import started

TURNS = 2
TURN_S = 0.2
INBOX_LIMIT = 40
FLOOD_S = 20.0
FLOOD_A_S = 10 * TURNS / TURN_S
FLOODING_SESSIONS = 50
#: a chat of this platform takes one message a second
CALM_EVERY_S = 1.6
REPEAT_S = 0.05
#: the shortest time a platform waits for its 200
ACK_DEADLINE_S = 3.0


class Answered(msgspec.Struct, frozen=True):
    """One request and what the gateway said to it; times are unix seconds."""

    number: int
    who: str
    status: int
    retry_after: str
    asked_at: float
    took_s: float


class Crowd:
    """Everybody who writes at once: the flood on one platform, and a calm person on another."""

    def __init__(self, bot: Bot) -> None:
        self._url = bot.gateway.url
        self._sender = Sender(bot.platform.secrets)
        self._numbers = itertools.count(1)
        self.answers: list[Answered] = []

    async def write(self) -> None:
        """Send everything at its time, however slowly the answers come."""
        limits = httpx2.Limits(max_connections=200)
        async with (
            httpx2.AsyncClient(base_url=self._url, timeout=30, trust_env=False, limits=limits) as client,
            asyncio.TaskGroup() as writing,
        ):
            writing.create_task(self._every(1 / FLOOD_A_S, lambda: writing.create_task(self._flood(client))))
            writing.create_task(self._every(CALM_EVERY_S, lambda: writing.create_task(self._calm(client))))

    async def _every(self, pause_s: float, send: Callable[[], object]) -> None:
        began = time.monotonic()
        for count in range(int(FLOOD_S / pause_s)):
            await asyncio.sleep(max(0.0, began + count * pause_s - time.monotonic()))
            send()

    async def _flood(self, client: httpx2.AsyncClient) -> None:
        number = next(self._numbers)
        request = self._sender.standard(f"flood{number % FLOODING_SESSIONS}", text(number))
        await self._send(client, number, "flood", request)

    async def _calm(self, client: httpx2.AsyncClient) -> None:
        """Write one message; the platform repeats it until it is taken."""
        number = next(self._numbers)
        request = self._sender.telegram(77, text(number))
        while await self._send(client, number, "calm", request) != 200:  # noqa: ASYNC110 - it asks again each time
            await asyncio.sleep(REPEAT_S)

    async def _send(self, client: httpx2.AsyncClient, number: int, who: str, request: SignedRequest) -> int:
        asked_at = time.time()
        answer = await client.post(request.path, content=request.body, headers=request.headers)
        retry_after = answer.headers.get("retry-after", "")
        self.answers.append(Answered(number, who, answer.status_code, retry_after, asked_at, time.time() - asked_at))
        return answer.status_code


def text(number: int) -> str:
    return f"[[sleep {TURN_S}]] number {number}."


def numbers(platform: RunningPlatform, name: str) -> dict[int, float]:
    """Return when each numbered message was answered, in unix seconds; nothing may be answered twice."""
    found: Counter[int] = Counter()
    times = {}
    for reply in platform.received(name):
        if marked := re.search(r"number (\d+)\.", reply.text):
            found[int(marked[1])] += 1
            times[int(marked[1])] = reply.at
    assert max(found.values(), default=0) <= 1
    return times


def show(*, accepted: int, refused: int, acks_s: list[float], flood: list[float], calm: list[float]) -> None:
    """Print the figures."""
    ack = f"p50 {percentile(acks_s, 0.5) * 1000:.1f} ms, p99 {percentile(acks_s, 0.99) * 1000:.1f} ms"
    replies = f"p99 of the flood {percentile(flood, 0.99):.2f} s, of the calm {percentile(calm, 0.99):.2f} s"
    sys.stdout.write(f"\n{accepted} accepted, {refused} refused; ack {ack}; reply {replies}\n")


@pytest.fixture
def small_bot(tmp_path: Path, platform: RunningPlatform, provider: RunningProvider) -> Iterator[Bot]:
    """A gateway that runs two turns at a time and holds forty messages."""
    settings = {
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_TURNS_PER_WORKER": str(TURNS),
        "GATEHOUSE_WAITING_TURNS": "0",
        "GATEHOUSE_INBOX_LIMIT": str(INBOX_LIMIT),
        "GATEHOUSE_ALLOW": "*",
    }
    with started(tmp_path, platform, provider, **settings) as running:
        yield running


async def test_ten_times_the_capacity_is_answered_or_refused_never_dropped(small_bot: Bot) -> None:
    crowd = Crowd(small_bot)
    await crowd.write()
    accepted = {answer.number: answer for answer in crowd.answers if answer.status == 200}
    refused = [answer for answer in crowd.answers if answer.status != 200]
    platform = small_bot.platform

    def answered_at() -> dict[int, float]:
        return numbers(platform, "standard") | numbers(platform, "telegram")

    await asyncio.to_thread(small_bot.wait_until, lambda: len(answered_at()) >= len(accepted), 30, "every reply")
    times = answered_at()
    assert times.keys() == accepted.keys()
    assert {answer.status for answer in refused} == {503}
    assert all(int(answer.retry_after) > 0 for answer in refused)

    acks_s = [answer.took_s for answer in crowd.answers]
    waits_s: dict[str, list[float]] = {"flood": [], "calm": []}
    for number, answer in accepted.items():
        waits_s[answer.who].append(times[number] - answer.asked_at)
    show(accepted=len(accepted), refused=len(refused), acks_s=acks_s, **waits_s)
    assert percentile(acks_s, 0.99) < ACK_DEADLINE_S
    assert len(accepted) > FLOOD_S * TURNS / TURN_S / 3  # it went on working at its own pace
    # a place in the inbox is worth the time that those before it take, whoever they are
    assert max(waits_s["flood"]) < 4 * INBOX_LIMIT * TURN_S / TURNS + 5
    assert percentile(waits_s["calm"], 0.5) < percentile(waits_s["flood"], 0.5)
    places = [reply.text for reply in platform.received("telegram") if reply.text.startswith("You are number")]
    assert len(places) == 1  # once a minute at most
