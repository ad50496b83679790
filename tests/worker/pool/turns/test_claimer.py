"""Claims and renewals over the real store, on a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.events import Events
from shared.messages import Claim, ClaimRef, Ended, Retry, TurnStatus
from tests.shared.store.scratch import ENGINES, Scratch
from tests.worker.pool.conditions import until
from worker.pool.turns.claimer import LEASE_S, Claimer


class ClaimLoop:
    """A claimer whose looks are taken one after the other, as the pool does, and what they bring."""

    def __init__(self, scratch: Scratch, room: int = 5) -> None:
        self.claims: list[Claim] = []
        self.lost: list[ClaimRef] = []
        self.room = room
        self.events = Events()
        self.claimer = Claimer(
            scratch.store,
            self.events,
            "host",
            clock=scratch.clock,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            held = [claim.ref for claim in self.claims if claim.ref not in self.lost]
            look = await self.claimer.look(held, self.room - len(self.claims), 1)
            self.claims += look.claims
            self.lost += look.lost
            if look.wait_s:
                await self.claimer.until_woken(look.wait_s)

    def sessions(self) -> list[str]:
        return [claim.ref.session for claim in self.claims]


@pytest.fixture
async def scratch(tmp_path: Path) -> AsyncIterator[Scratch]:
    made = Scratch(ENGINES["sqlite"], tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def loop(scratch: Scratch) -> AsyncIterator[ClaimLoop]:
    made = ClaimLoop(scratch)
    yield made
    await made.close()


async def test_work_that_waits_is_claimed_and_no_more_than_there_is_room_for(scratch: Scratch, loop: ClaimLoop) -> None:
    for n in range(8):
        await scratch.accept(f"s:{n}")
    loop.start()
    await until(lambda: len(loop.claims) == 5, "the room is full")
    loop.room = 7
    loop.claimer.wake()
    await until(lambda: len(loop.claims) == 7, "the new room is full")
    assert len(set(loop.sessions())) == 7


async def test_a_wake_brings_new_work_at_once(scratch: Scratch, loop: ClaimLoop) -> None:
    loop.start()
    await asyncio.sleep(0)
    await scratch.accept()
    loop.claimer.wake()
    assert await until(lambda: loop.claims, "it is claimed") < 0.5


async def test_leases_are_renewed_before_sessions_are_claimed_after_the_host_stood_still(
    scratch: Scratch, loop: ClaimLoop
) -> None:
    await scratch.accept("s:runs")
    loop.start()
    await until(lambda: loop.claims, "it is claimed")
    for _ in range(5):
        await scratch.store.check()  # in turn with the round in which the claimer finds no more; then it sleeps
    scratch.clock.now += 2 * LEASE_S
    await scratch.accept("s:new")
    loop.claimer.wake()
    await until(lambda: len(loop.claims) > 1, "the new session is claimed")
    assert loop.sessions() == ["s:runs", "s:new"]
    assert loop.lost == []


async def test_a_lease_that_went_to_another_host_is_told(scratch: Scratch, loop: ClaimLoop) -> None:
    await scratch.accept()
    loop.start()
    await until(lambda: loop.claims, "it is claimed")
    scratch.clock.now += 2 * LEASE_S
    await scratch.store.claims.claim("other", 1, LEASE_S)
    loop.claimer.wake()
    await until(lambda: loop.lost == [loop.claims[0].ref], "the loss is told")


async def test_a_suspect_that_waits_is_found_however_often_others_wake_the_loop(
    scratch: Scratch, loop: ClaimLoop
) -> None:
    claim = await scratch.accept_and_claim()
    await scratch.store.claims.settle(claim.ref, Retry(5.0, 1, True, "died"))
    loop.start()
    waking = asyncio.create_task(wake_for_ever(loop.claimer))
    await asyncio.sleep(0.1)
    scratch.clock.now += 6
    await until(lambda: loop.claims, "the suspect is claimed", 5)
    waking.cancel()
    assert loop.claims[0].messages[0].suspect


async def wake_for_ever(claimer: Claimer) -> None:
    while True:
        claimer.wake()
        await asyncio.sleep(0.005)


async def test_an_answered_session_is_claimed_again_for_its_next_message(scratch: Scratch, loop: ClaimLoop) -> None:
    first, second = await scratch.accept("s"), await scratch.accept("s")
    loop.start()
    await until(lambda: loop.claims, "the first is claimed")
    await scratch.store.claims.settle(loop.claims[0].ref, Ended(TurnStatus.REPLIED, "ok", ()))
    loop.claimer.wake()
    await until(lambda: len(loop.claims) == 2, "the second is claimed")
    assert [claim.messages[0].id for claim in loop.claims] == [first, second]
