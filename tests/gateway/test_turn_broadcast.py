"""Who watches turns, and that nobody is waited for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.event_stream import READER_LIMIT_BYTES
from gateway.turn_broadcast import GatewayStopping, TextAdded, TurnBroadcast, TurnStarted
from shared.events import Event, Events
from shared.messages import Dead, Ended, Outcome, Parked, Retry, TurnStatus

REPLIED = Ended(TurnStatus.REPLIED, "hi", ())


class Settled(list[Outcome]):
    """Keeps every outcome it is told of."""

    def settled(self, session: str, outcome: Outcome) -> None:
        self.append(outcome)


class Broken:
    """An observer that raises."""

    def settled(self, session: str, outcome: Outcome) -> None:
        raise ValueError(f"{session}: {outcome}")


def live_with_record() -> tuple[TurnBroadcast, Settled]:
    settled = Settled()
    return TurnBroadcast(Events(), (settled,)), settled


async def test_an_observer_that_raises_harms_nobody() -> None:
    events, after = Events(), Settled()
    live = TurnBroadcast(events, (Broken(), after))
    follower = live.follow("m1")
    with live.watch("") as page:
        await page.next()
        live.settled("m1", "s1", REPLIED)
        assert await follower.next(1) == REPLIED
        assert after == [REPLIED]
        assert await page.next()
    assert events.counts[Event.SUBSCRIBER_FAILED] == 1


async def test_a_follower_sees_its_own_message_alone() -> None:
    live, _ = live_with_record()
    follower = live.follow("m1")
    live.delta("m2", "s2", 1, "other")
    live.turn_started("m1", "s1", "0")
    live.delta("m1", "s1", 1, "mine")
    live.settled("m1", "s1", REPLIED)
    assert [await follower.next(1) for _ in range(3)] == [TurnStarted(), TextAdded(1, "mine"), REPLIED]


async def test_deltas_that_wait_are_joined_within_a_step() -> None:
    live, _ = live_with_record()
    follower = live.follow("m1")
    for text in ("a", "b"):
        live.delta("m1", "s1", 1, text)
    live.delta("m1", "s1", 2, "c")
    assert [await follower.next(1), await follower.next(1)] == [TextAdded(1, "ab"), TextAdded(2, "c")]


async def test_nothing_within_the_time_is_none() -> None:
    live, _ = live_with_record()
    assert await live.follow("m1").next(0.01) is None


async def test_an_outcome_that_puts_a_message_off_does_not_end_its_follower() -> None:
    live, settled = live_with_record()
    follower = live.follow("m1")
    live.settled("m1", "s1", Parked())
    live.settled("m1", "s1", Retry(0, 1, True, "died"))
    dead = Dead(3, "died", "sorry")
    live.settled("m1", "s1", dead)
    assert await follower.next(1) == dead
    assert len(settled) == 3


async def test_an_unfollowed_message_is_forgotten() -> None:
    live, _ = live_with_record()
    follower = live.follow("m1")
    live.unfollow("m1", follower)
    live.settled("m1", "s1", REPLIED)
    assert await follower.next(0.01) is None


def events_of(chunk: bytes | None) -> list[tuple[str, Any]]:
    """Read the named events of a chunk."""
    assert chunk is not None
    blocks = [block.split("\n") for block in chunk.decode().split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def test_pages_get_named_events() -> None:
    live, _ = live_with_record()
    with live.watch("") as page:
        assert events_of(await page.next()) == [("hello", {})]
        live.todo_changed("s1", b'[{"id":"1"}]')
        live.tool_started("m1", "s1", "roll")
        live.settled("m1", "s1", REPLIED)
        found = events_of(await page.next())
    assert [name for name, _ in found] == ["todo", "tool", "turn"]
    assert found[0][1] == {"session": "s1", "todos": [{"id": "1"}]}
    assert found[2][1]["state"] == "replied"


async def test_a_page_reads_the_text_of_its_session_alone_and_what_came_before_it_was_opened() -> None:
    live, _ = live_with_record()
    live.turn_started("m1", "s1", "0")
    for text in ("half ", "an "):
        live.delta("m1", "s1", 1, text)
    with live.watch("s1") as page, live.watch("s2") as other:
        whole, hello = events_of(await page.next())
        assert whole == ("text", {"session": "s1", "message": "m1", "step": 1, "text": "half an ", "whole": True})
        assert hello == ("hello", {})
        assert events_of(await other.next()) == [("hello", {})]
        live.delta("m1", "s1", 1, "answer")
        live.settled("m1", "s1", REPLIED)
        assert [name for name, _ in events_of(await page.next())] == ["text", "turn"]
        assert [name for name, _ in events_of(await other.next())] == ["turn"]
    with live.watch("s1") as late:
        assert events_of(await late.next()) == [("hello", {})]


async def test_a_page_that_does_not_read_is_dropped_and_the_others_miss_nothing() -> None:
    live, _ = live_with_record()
    words = "x" * (READER_LIMIT_BYTES // 4)
    with live.watch("") as slow, live.watch("") as quick:
        await quick.next()
        read = 0
        for _ in range(6):
            live.tell("turn", session=words)
            read += len(events_of(await quick.next()))
        assert (read, slow.dropped, quick.dropped) == (6, True, False)
        assert await slow.next() is None


async def test_every_reader_gets_the_same_bytes() -> None:
    live, _ = live_with_record()
    with live.watch("") as one, live.watch("") as other:
        await asyncio.gather(one.next(), other.next())
        live.tell("turn", session="s1")
        assert await one.next() is await other.next()


async def test_closing_ends_pages_after_what_waits_and_stops_followers() -> None:
    live, _ = live_with_record()
    follower = live.follow("m1")
    with live.watch("") as page:
        await page.next()
        waiting = asyncio.create_task(page.next())
        await asyncio.sleep(0)
        live.tell("turn", session="s1")
        live.close()
        assert events_of(await waiting) == [("turn", {"session": "s1"})]
        assert await page.next() is None
    assert await follower.next(1) == GatewayStopping()
    with live.stream.subscribe() as late:
        assert await late.next() is None
