"""``python -m loadtests.shared_rates``: 1,000 replies to 50 chats by two gateways keep what the platform allows.

Two gateways and a host of workers, real processes, share one PostgreSQL; people on Telegram write to both in turns, as
behind a load balancer. Every reply has to come once, those of a chat in their order, never two in a second to one chat
and never more than 30 in a second in all. ``--kill`` kills one gateway in the middle: then a reply that was on its way
may come twice.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import msgspec

from gateway.platforms.telegram import Telegram
from loadtests.gateway_process import GatewayProcess
from loadtests.platform import RunningPlatform, running_platform
from loadtests.platform_wire import Received
from loadtests.postgres_server import PostgresServer
from loadtests.provider import running_provider
from loadtests.sender import Sender

#: what Telegram allows: a chat, and a bot
CHAT_SPAN_S = 1.0
(APP,) = Telegram.capabilities.app_rates
#: how much closer two requests may arrive than they left, in seconds
TRAVEL_S = 0.04
WITHIN_S = 180.0


class Kept(msgspec.Struct, frozen=True):
    """What came of a run."""

    seconds: float
    replies: int
    #: replies that came more than once
    repeated: int
    #: chats whose replies came in another order than their messages
    out_of_order: int
    #: the shortest time between two requests to one chat, in seconds
    closest_s: float
    #: the most requests in any span of the app's rate
    most_at_once: int

    @property
    def holds(self) -> bool:
        """Whether order and rates were kept."""
        return not self.out_of_order and self.closest_s >= CHAT_SPAN_S - TRAVEL_S and self.most_at_once <= APP.count


def run(
    gateways: Sequence[GatewayProcess],
    platform: RunningPlatform,
    chats: Sequence[int],
    each: int,
    kill: GatewayProcess | None = None,
) -> Kept:
    """Let every chat write so many messages, to the gateways in turns, and wait for all replies. Raises TimeoutError.

    One gateway is killed once half of the replies are there, if there is one to be.
    """
    sender, began = Sender(platform.secrets), time.monotonic()
    with httpx2.Client(timeout=30) as client:
        for number in range(each):
            for place, chat in enumerate(chats):
                request = sender.telegram(chat, f"[[say number {number};]]")
                url = gateways[(number + place) % len(gateways)].url + request.path
                client.post(url, content=request.body, headers=request.headers).raise_for_status()
    wanted = len(chats) * each
    if kill is not None:
        platform.wait(wanted // 2, "telegram", within_s=WITHIN_S)
        kill.kill_tree()
    until = time.monotonic() + WITHIN_S
    while len(told := texts_of(found := platform.received("telegram"), chats)) < wanted:
        if time.monotonic() > until:
            raise TimeoutError(f"{len(told)} of {wanted} replies came")
        time.sleep(0.2)
    return judge(found, chats, each, time.monotonic() - began)


def texts_of(found: Sequence[Received], chats: Sequence[int]) -> dict[tuple[str, int], list[float]]:
    """Return when each reply came, by chat and number."""
    names, told = {str(chat) for chat in chats}, collections.defaultdict(list)
    for one in found:
        if one.conversation in names and "number " in (text := str(one.body)):
            told[one.conversation, int(text.partition("number ")[2].partition(";")[0])].append(one.at)
    return told


def judge(found: Sequence[Received], chats: Sequence[int], each: int, seconds: float) -> Kept:
    """Return what the platform saw."""
    told = texts_of(found, chats)
    first = {chat: [min(told[str(chat), number]) for number in range(each)] for chat in chats}
    spans = []
    for chat in chats:
        moments = sorted(one.at for one in found if one.conversation == str(chat))
        spans += [later - earlier for earlier, later in itertools.pairwise(moments)]
    all_at = sorted(one.at for one in found)
    span_s = APP.per_s - TRAVEL_S
    return Kept(
        seconds,
        sum(len(moments) for moments in told.values()),
        sum(len(moments) - 1 for moments in told.values()),
        sum(moments != sorted(moments) for moments in first.values()),
        min(spans, default=CHAT_SPAN_S),
        max(bisect.bisect_left(all_at, at + span_s) - place for place, at in enumerate(all_at)),
    )


def main() -> int:
    """Run with processes of its own; 0 if all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=50)
    parser.add_argument("--each", type=int, default=20, help="messages of every chat")
    parser.add_argument("--kill", action="store_true", help="kill one gateway when half of the replies are there")
    asked = parser.parse_args()
    with contextlib.ExitStack() as held:
        server = held.enter_context(contextlib.closing(PostgresServer(durable=True)))
        provider, platform = held.enter_context(running_provider()), held.enter_context(running_platform())
        settings = platform.environment() | {
            "DATABASE_URL": server.url(),
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.openai_url,
            "GATEHOUSE_SPARES": "0",
        }

        def start(kind: str, workers: str) -> GatewayProcess:
            place = Path(held.enter_context(tempfile.TemporaryDirectory()))
            return held.enter_context(GatewayProcess(place, settings | {"GATEHOUSE_WORKERS": workers}, (kind,)))

        gateways = [start("gateway", "0"), start("gateway", "0")]
        start("worker", "2")
        kept = run(gateways, platform, range(1, asked.chats + 1), asked.each, gateways[0] if asked.kill else None)
    print(msgspec.json.encode(kept).decode())
    return 0 if kept.holds and (asked.kill or not kept.repeated) else 1


if __name__ == "__main__":
    sys.exit(main())
