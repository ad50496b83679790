"""Who watches turns, and that nobody is waited for."""

from __future__ import annotations

import asyncio
import json

from gateway.turn_broadcast import SUBSCRIPTION_LIMIT, Started, Stopped, Text, TurnBroadcast
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
    with live.subscribe() as page:
        live.settled("m1", "s1", REPLIED)
        assert await follower.next(1) == REPLIED
        assert after == [REPLIED]
        assert await page.next(1)
    assert events.counts[Event.SUBSCRIBER_FAILED] == 1


async def test_a_follower_sees_its_own_message_alone() -> None:
    live, _ = live_with_record()
    follower = live.follow("m1")
    live.delta("m2", "s2", 1, "other")
    live.turn_started("m1", "s1", "0")
    live.delta("m1", "s1", 1, "mine")
    live.settled("m1", "s1", REPLIED)
    assert [await follower.next(1) for _ in range(3)] == [Started(), Text(1, "mine"), REPLIED]


async def test_deltas_that_wait_are_joined_within_a_step() -> None:
    live, _ = live_with_record()
    follower = live.follow("m1")
    for text in ("a", "b"):
        live.delta("m1", "s1", 1, text)
    live.delta("m1", "s1", 2, "c")
    assert [await follower.next(1), await follower.next(1)] == [Text(1, "ab"), Text(2, "c")]


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
    live.unfollow("m1")
    live.settled("m1", "s1", REPLIED)
    assert await follower.next(0.01) is None


async def test_pages_get_named_events() -> None:
    live, _ = live_with_record()
    with live.subscribe() as page:
        live.todo_changed("s1", b'[{"id":"1"}]')
        live.tool_started("m1", "s1", "roll")
        live.settled("m1", "s1", REPLIED)
        found = await page.next(1)
    assert found is not None
    assert [name for name, _ in found] == ["todo", "tool", "turn"]
    assert json.loads(found[0][1]) == {"session": "s1", "todos": [{"id": "1"}]}
    assert json.loads(found[2][1])["state"] == "replied"


async def test_a_page_that_lags_is_told_to_load_everything_anew() -> None:
    live, _ = live_with_record()
    with live.subscribe() as page:
        for _ in range(SUBSCRIPTION_LIMIT + 1):
            live.tell("turn", session="s1")
        assert await page.next(1) == [("reload", b"{}")]


async def test_closing_ends_pages_after_what_waits_and_stops_followers() -> None:
    live, _ = live_with_record()
    follower = live.follow("m1")
    with live.subscribe() as page:
        waiting = asyncio.create_task(page.next(5))
        await asyncio.sleep(0)
        live.tell("turn", session="s1")
        live.close()
        assert await waiting is not None
        assert await page.next(5) is None
    assert await follower.next(1) == Stopped()
    with live.subscribe() as late:
        assert await late.next(5) is None
