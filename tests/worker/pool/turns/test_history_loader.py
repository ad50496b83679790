"""What a worker is given of a conversation that it does not hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from shared.errors import FrameTooLarge
from shared.events import Events
from shared.messages import Arrival, Claim, Summary
from shared.store import Store, open_store
from worker.frames import History
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.store_health import StoreHealth
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.turns.history_loader import SCANNED, HistoryLoader


class Taker:
    """A worker whose channel takes so many messages at once; it keeps what it was given."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.given: list[History] = []

    async def until_writable(self) -> None:
        return None

    def send(self, frame: History) -> None:
        if len(frame.messages) > self.most:
            raise FrameTooLarge("too many")
        self.given.append(frame)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store("", tmp_path, inbox_limit=10)
    await opened.open()
    yield opened
    await opened.close()


async def claimed(store: Store, count: int, size: int = 10) -> Claim:
    history = tuple(f"{number:0{size}}".encode() for number in range(count))
    await store.inbox.accept(Arrival("m", "a:b:c", "a", "ann", "x", b"{}", ("m",), 60.0, 1.0, history=history))
    (claim,) = (await store.claims.claim("host", 1, 30)).claims
    return claim


async def given(store: Store, claim: Claim, most: int = 1000, *, active: bool = True) -> list[History]:
    turn, worker = ActiveTurn(1, claim), Taker(most)
    turn.over = not active
    turn.worker = cast("WorkerProcess", worker)
    conversations = HistoryLoader(store, StoreHealth(Events()), 1000)
    await conversations.send(turn, turn.worker)
    return worker.given


async def test_it_is_the_newest_that_fit_twice_into_a_window_and_enough_to_find_a_list_in(store: Store) -> None:
    (long,) = await given(store, await claimed(store, 500, size=100))
    assert SCANNED == len(long.messages) == 100
    assert long.first == 400
    assert int(long.messages[-1]) == 499


async def test_small_messages_are_given_by_their_size(store: Store) -> None:
    (found,) = await given(store, await claimed(store, 900), most=10_000)
    assert (found.first, len(found.messages)) == (100, 800)


async def test_what_no_frame_holds_is_cut_to_its_end(store: Store) -> None:
    claim = await claimed(store, 100)
    (found,) = await given(store, claim, most=30)
    assert (found.first, len(found.messages)) == (75, 25)
    assert int(found.messages[0]) == 75


async def test_a_summary_is_given_with_what_is_behind_it(store: Store) -> None:
    claim = await claimed(store, 100)
    await store.claims.checkpoint(claim.ref, (), Summary(90, "so far"))
    (found,) = await given(store, claim)
    assert (found.summary, found.first, len(found.messages)) == (Summary(90, "so far"), 90, 10)


async def test_a_turn_that_is_lost_is_given_nothing(store: Store) -> None:
    assert await given(store, await claimed(store, 1), active=False) == []
