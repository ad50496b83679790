"""Claims and renewals over the real store, on a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.events import Event, Events
from shared.messages import Claim, ClaimRef, Ended, Retry, TurnStatus
from tests.shared.store.bench import ENGINES, Bench
from tests.worker.pool.conditions import until
from worker.pool.store_health import StoreHealth
from worker.pool.turns.claimer import LEASE_S, Claimer


class Desk:
    """A claimer and what it brings."""

    def __init__(self, bench: Bench, room: int = 5) -> None:
        self.claims: list[Claim] = []
        self.lost: list[ClaimRef] = []
        self.room = room
        self.events = Events()
        self.claimer = Claimer(
            bench.store,
            self.events,
            StoreHealth(self.events),
            "host",
            room=lambda: self.room - len(self.claims),
            suspect_room=lambda: 1,
            on_claim=self.claims.append,
            held=lambda: [claim.ref for claim in self.claims],
            on_lost=self.lost.append,
            clock=bench.clock,
        )

    def sessions(self) -> list[str]:
        return [claim.ref.session for claim in self.claims]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(ENGINES["sqlite"], tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def desk(bench: Bench) -> AsyncIterator[Desk]:
    made = Desk(bench)
    yield made
    await made.claimer.close()


async def test_work_that_waits_is_claimed_and_no_more_than_there_is_room_for(bench: Bench, desk: Desk) -> None:
    for n in range(8):
        await bench.accept(f"s:{n}")
    desk.claimer.start()
    await until(lambda: len(desk.claims) == 5, "the room is full")
    desk.room = 7
    desk.claimer.wake()
    await until(lambda: len(desk.claims) == 7, "the new room is full")
    assert len(set(desk.sessions())) == 7


async def test_a_wake_brings_new_work_at_once(bench: Bench, desk: Desk) -> None:
    desk.claimer.start()
    await asyncio.sleep(0)
    await bench.accept()
    desk.claimer.wake()
    assert await until(lambda: desk.claims, "it is claimed") < 0.5


async def test_leases_are_renewed_before_sessions_are_claimed_after_the_host_stood_still(
    bench: Bench, desk: Desk
) -> None:
    await bench.accept("s:runs")
    desk.claimer.start()
    await until(lambda: desk.claims, "it is claimed")
    for _ in range(5):
        await bench.store.check()  # in turn with the round in which the claimer finds no more; then it sleeps
    bench.clock.now += 2 * LEASE_S
    await bench.accept("s:new")
    desk.claimer.wake()
    await until(lambda: len(desk.claims) > 1, "the new session is claimed")
    assert desk.sessions() == ["s:runs", "s:new"]
    assert desk.lost == []


async def test_a_lease_that_went_to_another_host_is_told(bench: Bench, desk: Desk) -> None:
    await bench.accept()
    desk.claimer.start()
    await until(lambda: desk.claims, "it is claimed")
    bench.clock.now += 2 * LEASE_S
    await bench.store.claims.claim("other", 1, LEASE_S)
    desk.claimer.wake()
    await until(lambda: desk.lost == [desk.claims[0].ref], "the loss is told")


async def test_a_suspect_that_waits_is_found_however_often_others_wake_the_loop(bench: Bench, desk: Desk) -> None:
    claim = await bench.accept_and_claim()
    await bench.store.claims.settle(claim.ref, Retry(5.0, 1, True, "died"))
    desk.claimer.start()
    waking = asyncio.create_task(wake_for_ever(desk.claimer))
    await asyncio.sleep(0.1)
    bench.clock.now += 6
    await until(lambda: desk.claims, "the suspect is claimed", 5)
    waking.cancel()
    assert desk.claims[0].messages[0].suspect


async def wake_for_ever(claimer: Claimer) -> None:
    while True:
        claimer.wake()
        await asyncio.sleep(0.005)


async def test_claims_that_come_while_claiming_stops_are_not_dropped(bench: Bench, desk: Desk) -> None:
    await bench.accept()
    desk.claimer.start()
    await asyncio.sleep(0)
    await desk.claimer.stop_claiming()
    running = (await bench.store.sessions.latest())[0].running
    assert running == bool(desk.claims)


async def test_a_store_that_is_away_is_said_once_and_asked_again(bench: Bench, desk: Desk) -> None:
    await bench.accept()
    await bench.close()
    desk.claimer.start()
    await until(lambda: desk.events.counts[Event.STORE_UNAVAILABLE], "it is said")
    await asyncio.sleep(0.3)
    assert desk.events.counts[Event.STORE_UNAVAILABLE] == 1
    assert not desk.claimer.broken


async def test_an_answered_session_is_claimed_again_for_its_next_message(bench: Bench, desk: Desk) -> None:
    first, second = await bench.accept("s"), await bench.accept("s")
    desk.claimer.start()
    await until(lambda: desk.claims, "the first is claimed")
    await bench.store.claims.settle(desk.claims[0].ref, Ended(TurnStatus.REPLIED, "ok", ()))
    desk.claimer.wake()
    await until(lambda: len(desk.claims) == 2, "the second is claimed")
    assert [claim.messages[0].id for claim in desk.claims] == [first, second]
