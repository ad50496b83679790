"""Attribution of a stuck loop: the shared page names the turn whose code runs, and nothing when none does."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import uvloop

from worker.agent.turn_attribution import TurnAttribution
from worker.shared_page import SharedPage


class Watched:
    """Runs coroutines as turns on one kind of loop and reads the page."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.page = SharedPage.create()
        self.blame = TurnAttribution(self.page.set_running)
        self._new_loop = new_loop

    def run(self, main: Callable[[Watched], Coroutine[None, None, None]]) -> None:
        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            self.blame.install(runner.get_loop())
            runner.run(main(self))
        self.page.close()

    def start(self, turn: int, coro: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self.blame.start(turn, coro, asyncio.get_running_loop())


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def watched(request: pytest.FixtureRequest) -> Watched:
    return Watched(request.param)


def test_the_running_turn_is_named_and_its_subtasks_too(watched: Watched) -> None:
    seen: list[int] = []

    async def look() -> None:
        seen.append(watched.page.running())
        await asyncio.sleep(0)
        seen.append(watched.page.running())

    async def turn() -> None:
        await look()
        await asyncio.gather(look(), asyncio.create_task(look()))

    async def main(watched: Watched) -> None:
        await asyncio.gather(watched.start(7, turn()), watched.start(8, turn()))
        assert watched.page.running() == 0

    watched.run(main)
    assert sorted(seen) == [7] * 6 + [8] * 6


def test_code_that_is_no_turns_names_none(watched: Watched) -> None:
    async def main(watched: Watched) -> None:
        async def look() -> None:
            assert watched.page.running() == 0

        task = watched.start(7, asyncio.sleep(0.001))
        await asyncio.create_task(look())
        asyncio.get_running_loop().call_soon(lambda: None)
        await task
        assert watched.page.running() == 0

    watched.run(main)


def test_a_loop_that_hangs_names_its_turn_to_whoever_looks(watched: Watched) -> None:
    seen: list[int] = []
    hanging, looked = threading.Event(), threading.Event()

    def watch() -> None:
        hanging.wait(5)
        seen.append(watched.page.running())
        looked.set()

    async def hang() -> None:
        await asyncio.sleep(0)
        hanging.set()
        looked.wait(5)

    async def main(watched: Watched) -> None:
        thread = threading.Thread(target=watch)
        thread.start()
        innocent = watched.start(3, asyncio.sleep(0.01))
        await watched.start(9, hang())
        await innocent
        thread.join()

    watched.run(main)
    assert seen == [9]


def test_results_errors_and_cancelling_pass_through(watched: Watched) -> None:
    async def main(watched: Watched) -> None:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise LookupError("x")

        async def clean_up(done: list[str]) -> None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                done.append("cleaned")
                raise

        async def outer() -> None:
            async def give() -> int:
                await asyncio.sleep(0)
                return 5

            assert await asyncio.create_task(give()) == 5
            with pytest.raises(LookupError):
                await asyncio.create_task(fail())
            done: list[str] = []
            task = asyncio.create_task(clean_up(done))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert done == ["cleaned"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.create_task(asyncio.sleep(30))

        await watched.start(7, outer())
        assert watched.page.running() == 0

    watched.run(main)


def test_a_task_cancelled_before_its_first_step_leaves_nothing_unawaited(watched: Watched) -> None:
    async def main(watched: Watched) -> None:
        async def never() -> None:
            raise AssertionError

        task = watched.start(7, never())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched.run(main)
        gc.collect()


async def spin(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


async def numbers() -> AsyncIterator[int]:
    for number in range(3):
        await asyncio.sleep(0)
        yield number


def test_async_generators_work_inside_a_turn(watched: Watched) -> None:
    async def main(watched: Watched) -> None:
        got: list[int] = []

        async def turn() -> None:
            got.extend([number async for number in numbers()])

        await watched.start(7, turn())
        assert got == [0, 1, 2]

    watched.run(main)
