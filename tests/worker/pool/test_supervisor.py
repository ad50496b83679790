"""Real processes are started, killed, stopped and hung; the supervisor keeps its slots filled."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.events import Event, Events
from shared.messages import Ended
from tests.worker.pool.children import ENTRY
from tests.worker.pool.conditions import lives, until
from worker.frames import Drained, RunTurn, StepDone, ToPool, TurnDone, WorkerConfig
from worker.pool.processes.death import Cause, Death
from worker.pool.processes.worker_process import FrameReceived, WorkerEnded, WorkerPlaced, WorkerProcess, WorkerState
from worker.pool.supervisor import Supervisor


def order(turn: int, text: str) -> RunTurn:
    return RunTurn(turn, f"s:{turn}", turn, 0, f"msg_{turn}", (text,), (), 60.0)


class Recorder:
    """Keeps what the supervisor tells."""

    def __init__(self) -> None:
        self.placed: list[WorkerProcess] = []
        self.frames: list[ToPool] = []
        self.deaths: list[tuple[WorkerProcess, Death]] = []
        self.frames_at_death = 0

    async def record(self, supervisor: Supervisor) -> None:
        async for news in supervisor.news:
            match news:
                case WorkerPlaced(worker=worker):
                    self.placed.append(worker)
                case FrameReceived(frame=frame):
                    self.frames.append(frame)
                case WorkerEnded(worker=worker, death=death):
                    self.deaths.append((worker, death))
                    self.frames_at_death = len(self.frames)

    def done(self) -> list[str]:
        outcomes = [frame.outcome for frame in self.frames if isinstance(frame, TurnDone)]
        return [outcome.text for outcome in outcomes if isinstance(outcome, Ended)]


class Supervised:
    """A supervisor with its recorder; must be made on the loop."""

    def __init__(self, slots: int, spares: int, prompt: str, log_dir: str) -> None:
        self.recorder = Recorder()
        self.events = Events()
        config = WorkerConfig((), prompt, log_dir=log_dir)
        self.supervisor = Supervisor(
            slots, spares, config, self.events, entry=ENTRY, start_timeout_s=1.0 if prompt else 30.0
        )
        self.recording = asyncio.get_running_loop().create_task(self.recorder.record(self.supervisor))

    async def close(self) -> None:
        await self.supervisor.close()
        self.recording.cancel()

    async def filled(self) -> None:
        def full() -> bool:
            slots = self.supervisor.slots.values()
            return all(worker is not None and worker.usable for worker in slots)

        await until(full, "every slot has a worker", 30)

    def worker(self, n: int = 0) -> WorkerProcess:
        worker = self.supervisor.slots[n]
        assert worker is not None
        return worker


Supervise = Callable[..., Awaitable[Supervised]]


@pytest.fixture
async def supervise(tmp_path: Path) -> AsyncIterator[Supervise]:
    async with AsyncExitStack() as stack:

        async def make(slots: int = 1, spares: int = 1, prompt: str = "") -> Supervised:
            made = Supervised(slots, spares, prompt, str(tmp_path / "logs"))
            stack.push_async_callback(made.close)
            made.supervisor.start()
            if not prompt:
                await made.filled()
                await until(lambda: len(made.supervisor.spares) == spares, "the spares are ready")
            return made

        yield make


async def test_slots_are_filled_and_a_spare_stands_ready(supervise: Supervise) -> None:
    made = await supervise(slots=2, spares=1)
    assert {made.worker(0).state, made.worker(1).state} == {WorkerState.READY}
    assert len(made.supervisor.spares) == 1
    made.worker(0).send(order(1, "hello"))
    await until(lambda: made.recorder.done() == ["echo: hello"], "the turn is done")


async def test_a_killed_worker_is_replaced_by_the_spare_and_a_new_spare_started(supervise: Supervise) -> None:
    made = await supervise()
    first = made.worker()
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: made.supervisor.slots[0] not in {first, None}, "the slot is filled again", 10)
    assert made.recorder.deaths[0][1].cause is Cause.KILLED
    assert "SIGKILL" in made.recorder.deaths[0][1].error
    await until(lambda: len(made.supervisor.spares) == 1, "a new spare is ready")
    assert made.supervisor.restarts == 1


async def test_a_worker_that_exits_reports_its_status(supervise: Supervise) -> None:
    made = await supervise()
    made.worker().send(order(1, "exit 3"))
    await until(lambda: made.recorder.deaths, "the death is told")
    death = made.recorder.deaths[0][1]
    assert "status 3" in death.error
    assert death.culprit == 1


async def test_frames_that_left_a_worker_before_its_death_are_handed_over_first(supervise: Supervise) -> None:
    made = await supervise()
    worker = made.worker()
    worker.send(order(1, "steps 40 0"))
    worker.send(order(2, "exit 1"))
    await until(lambda: made.recorder.deaths, "the death is told")
    steps = sum(1 for frame in made.recorder.frames[: made.recorder.frames_at_death] if isinstance(frame, StepDone))
    assert steps >= 1
    assert made.recorder.frames_at_death == len(made.recorder.frames)


@pytest.mark.parametrize(("text", "names"), [("block", "time.sleep|obey"), ("hold", "hold_the_gil")])
async def test_a_hung_worker_is_killed_with_its_stacks(supervise: Supervise, text: str, names: str) -> None:
    made = await supervise()
    worker = made.worker()
    worker.send(order(7, text))
    await until(lambda: worker.page.running() == 7 and worker.page.beat_age_s() > 0.5, "the loop is stuck")
    death = Death(Cause.HUNG, worker.page.running(), "no heartbeat")
    await made.supervisor.end(worker, death, dump=True)
    await until(lambda: made.recorder.deaths, "the death is told", 10)
    told = made.recorder.deaths[0][1]
    assert told.culprit == 7
    assert any(name in told.stacks for name in names.split("|")), told.stacks
    assert made.events.counts[Event.WORKER_STACKS] == 1


async def test_no_grandchild_outlives_a_killed_worker(supervise: Supervise, tmp_path: Path) -> None:
    made = await supervise()
    note = tmp_path / "pid"
    made.worker().send(order(1, f"grandchild {note}"))
    await until(lambda: note.exists() and note.read_text(), "the grandchild runs")
    grandchild = int(note.read_text())
    assert lives(grandchild)
    await made.supervisor.end(made.worker(), Death(Cause.HUNG), dump=False)
    await until(lambda: not lives(grandchild), "the grandchild is gone", 10)


async def test_no_grandchild_outlives_a_worker_killed_from_outside(supervise: Supervise, tmp_path: Path) -> None:
    made = await supervise()
    note = tmp_path / "pid"
    made.worker().send(order(1, f"grandchild {note}"))
    await until(lambda: note.exists() and note.read_text(), "the grandchild runs")
    os.kill(made.worker().pid, signal.SIGKILL)
    await until(lambda: not lives(int(note.read_text())), "the grandchild is gone", 10)


@pytest.mark.parametrize("end", ["killed", "killed from outside", "exits", "drained"])
async def test_no_program_in_a_session_of_its_own_outlives_its_worker(
    supervise: Supervise, tmp_path: Path, end: str
) -> None:
    made = await supervise()
    worker, note, other = made.worker(), tmp_path / "pid", tmp_path / "other"
    worker.send(order(1, f"daemon {note}"))
    await until(lambda: note.exists() and note.read_text(), "the daemon runs")
    daemon = int(note.read_text())
    assert os.getsid(daemon) == daemon
    match end:
        case "killed":
            await made.supervisor.end(worker, Death(Cause.HUNG), dump=False)
        case "killed from outside":
            os.kill(worker.pid, signal.SIGKILL)
        case "exits":
            worker.send(order(2, "exit 3"))
        case "drained":
            made.supervisor.replace(worker)
            os.kill(worker.pid, signal.SIGKILL)  # its turn would sleep on
    await until(lambda: not lives(daemon), "the daemon is gone", 10)
    await until(lambda: made.supervisor.slots[0] not in {worker, None}, "it is replaced")
    made.worker().send(order(3, f"daemon {other}"))
    await until(lambda: len(made.supervisor.spares) == 1, "a spare is ready")
    await until(lambda: other.exists() and other.read_text(), "that of another worker runs")
    third = made.supervisor.spares[0]
    os.kill(third.pid, signal.SIGKILL)
    await until(lambda: third.gone.is_set() and made.supervisor.spares, "a third worker has ended and was replaced")
    assert lives(int(other.read_text()))


async def test_a_stopped_worker_neither_blocks_the_sender_nor_grows_without_bound(supervise: Supervise) -> None:
    made = await supervise()
    worker = made.worker()
    os.kill(worker.pid, signal.SIGSTOP)
    sent = 0
    while not worker.full:
        worker.send(order(sent + 1, "x" * 60_000))
        sent += 1
        assert sent < 100
    await made.supervisor.end(worker, Death(Cause.HUNG), dump=True)
    await until(lambda: made.supervisor.slots[0] not in {worker, None}, "it is replaced", 10)


async def test_signals_for_the_gateways_group_do_not_hurt_a_worker(supervise: Supervise) -> None:
    made = await supervise()
    worker = made.worker()
    assert os.getpgid(worker.pid) == worker.pid
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(worker.pid, signum)
    worker.send(order(1, "still here"))
    await until(lambda: made.recorder.done() == ["echo: still here"], "the turn is done")


async def test_a_drained_worker_parks_and_ends_without_being_counted_as_lost(supervise: Supervise) -> None:
    made = await supervise()
    worker = made.worker()
    worker.send(order(1, "steps 100 0.05"))
    await until(lambda: any(isinstance(frame, StepDone) for frame in made.recorder.frames), "a step is done")
    assert made.supervisor.replace(worker)
    assert made.supervisor.slots[0] not in {worker, None}
    await until(lambda: made.recorder.deaths, "it has ended")
    assert made.recorder.deaths[0][1].cause is Cause.DRAINED
    assert any(isinstance(frame, Drained) for frame in made.recorder.frames)
    assert made.supervisor.restarts == 0


async def test_a_start_that_fails_is_tried_again_later_and_later(supervise: Supervise) -> None:
    made = await supervise(slots=1, spares=0, prompt="die at once")
    took = await until(lambda: made.events.counts[Event.WORKER_FAILED_TO_START] >= 4, "four starts failed")
    assert took >= 0.1 + 0.2 + 0.4
    assert made.supervisor.slots == {0: None}


async def test_a_start_that_fails_says_how_the_process_ended(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    made = await supervise(slots=1, spares=0, prompt="die at once")
    await until(lambda: made.events.counts[Event.WORKER_FAILED_TO_START] >= 1, "the start failed")
    (error, *_) = (vars(one)["fields"]["error"] for one in caplog.records if one.msg == "worker_failed_to_start")
    assert "ended with status" in error


async def test_a_worker_that_never_gets_ready_is_given_up(supervise: Supervise) -> None:
    made = await supervise(slots=1, spares=0, prompt="never ready")
    await until(lambda: made.events.counts[Event.WORKER_FAILED_TO_START] >= 1, "the start failed")


PARENT = """
import asyncio, sys
from pathlib import Path
from shared.events import Events
from tests.worker.pool.test_supervisor import Supervised, order
from tests.worker.pool.conditions import until

async def main():
    made = Supervised(2, 1, "", "")
    made.supervisor.start()
    await made.filled()
    await until(lambda: len(made.supervisor.spares) == 1, "spare")
    for n, text in ((0, sys.argv[1]), (1, sys.argv[2])):
        made.worker(n).send(order(n + 1, text))
    if sys.argv[1] in {"hold", "block"}:
        await until(lambda: made.worker(0).page.beat_age_s() > 0.5, "stuck")
    note = Path(sys.argv[2].split()[1])
    await until(lambda: note.exists() and note.read_text(), "the grandchild runs")
    workers = [*made.supervisor.workers, *made.supervisor.spares]
    print(*(worker.pid for worker in workers), flush=True)
    if sys.argv[-1] == "leave":
        return
    await asyncio.sleep(3600)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("spells", ["SIGKILL", "leave"])
@pytest.mark.parametrize(
    ("text", "program"),
    [("sleep 60", "grandchild"), ("hold", "grandchild"), ("block", "grandchild"), ("sleep 60", "daemon")],
)
def test_children_die_with_their_parent_even_with_a_stuck_loop(
    text: str, program: str, spells: str, tmp_path: Path
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    note = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, str(script), text, f"{program} {note}", spells],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        if spells == "SIGKILL":
            parent.kill()
        parent.wait(20)
    asyncio.run(all_gone([*pids, int(note.read_text())]))


async def all_gone(pids: list[int]) -> None:
    await until(lambda: not any(lives(pid) for pid in pids), f"every one of {pids} is gone", 10)
