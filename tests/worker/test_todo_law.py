"""The law of the todo list: whatever happens to a session, its list is that of a ten-line model.

The code is the product's own on both sides of the channel: turns with a scripted model in TurnRunner, frames as they
cross the socket, the pool's Turns, the embedded store. A kill is what is left of one: no frame is heard any more, the
claim is taken anew, and a fresh worker goes on from what the store has.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from shared.budgets import Budgets
from shared.errors import ModelUnavailable
from shared.events import Events
from shared.messages import Arrival, Conversation, Dead, Ended, Outcome, Retry
from shared.store import Store
from tests.shared.store.scratch import ENGINES, adopt, rewrite, run_machine
from tests.worker.agent.scripted import says
from tests.worker.agent.test_todo import CALLS, model_call
from tests.worker.pool.test_pool import RecordingObserver
from worker.agent.context import transcript
from worker.agent.context.prompts import INSTRUCTION
from worker.agent.equipment import Equipment
from worker.agent.models.port import CallWatch, ModelReply, ModelRequest
from worker.agent.pool_channel import PoolChannel
from worker.agent.session_cache import SessionCache
from worker.agent.session_log import SessionLog
from worker.agent.todo import SCAN_LIMIT
from worker.agent.turn_runner import TurnRunner
from worker.channel import Channel
from worker.frames import History, NeedHistory, OfTurn, ToPool, ToWorker, TurnDone, WorkerConfig
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.store_health import StoreHealth
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.turns.history_loader import HistoryLoader
from worker.pool.turns.settler import ClaimSettled
from worker.pool.turns.turns import Turns
from worker.session_log.ring import HEADER_BYTES, LogRing
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

WINDOW_TOKENS = 1000
T = TypeVar("T")
Items = list[dict[str, str]]
Steps = list[list[dict[str, Any]]]
#: after how many frames a worker is killed, and whether its host is with it
Kill = tuple[int, bool]


class Shown(msgspec.Struct, frozen=True):
    """A history, and the list that it shows."""

    messages: tuple[bytes, ...]
    items: Items | None


def shown(lists: list[Items], behind: int) -> Shown:
    """Return a history with these lists in it, one after the other, a forged one, and so many messages behind them."""
    messages: list[bytes] = []
    for number, items in enumerate([*lists, [{"id": "f", "content": "forged", "status": "pending"}]]):
        forged = number == len(lists)
        call = ToolCall(f"h{number}", "web" if forged else "todo", "{}")
        result = json.dumps({"todos": items, "summary": {}})
        messages += [transcript.user("go"), transcript.assistant("", [call]), transcript.tool(call, result)]
    messages += [transcript.user("and so on")] * behind
    seen = bool(lists) and behind + 3 + 2 <= SCAN_LIMIT
    return Shown(tuple(messages), lists[-1] if seen else None)


ITEMS = st.lists(st.sampled_from("abc"), unique=True, max_size=3).map(
    lambda ids: [{"id": id_, "content": f"old {id_}", "status": "pending"} for id_ in ids]
)
HISTORIES = st.just(Shown((), None)) | st.builds(
    shown, st.lists(ITEMS, max_size=2), st.sampled_from([0, 40, SCAN_LIMIT - 5, SCAN_LIMIT - 4, 150])
)
STEPS = st.lists(CALLS.filter(bool).map(lambda calls: calls[:2]), max_size=4)
KILLS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=2)


class Sheet:
    """The ten-line model: the list of a session, and what its history would show of one.

    The empty list that a turn only reads may be kept or not: a worker that knows the session need not keep it.
    """

    def __init__(self, items: Items | None, shown: Items | None) -> None:
        self.items, self.shown, self.written = items, shown, False

    def read(self, *, bare: bool) -> Items:
        return self.items if self.items is not None else [] if bare else self.shown or []

    def turn(self, steps: list[list[dict[str, Any]]], *, bare: bool) -> None:
        items = self.read(bare=bare)
        for arguments in (call for step in steps for call in step):
            items = model_call(items, arguments)
        wrote = any("todos" in call for step in steps for call in step)
        self.written = self.written or wrote
        if not bare or wrote:
            self.items = items

    def rewritten(self, items: Items | None, shown: Items | None) -> None:
        self.written = self.items is not None or items is not None
        self.items = items if items is not None else None if self.items is None else []
        self.shown = shown

    def stored(self, items: Items | None) -> bool:
        """Tell whether this may be what is stored, and go on from there."""
        if items is None and self.items == [] and not self.written and not self.shown:
            self.items = None
        return items == self.items


class StepModel:
    """Says a turn's steps one after the other, from where the store says the turn is; every third summary fails."""

    name = "scripted"

    def __init__(self) -> None:
        self.steps: list[list[dict[str, Any]]] = []
        self.at = 0
        self.summaries = 0

    async def reply(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        await asyncio.sleep(0)
        if request.system == INSTRUCTION:
            self.summaries += 1
            if self.summaries % 3 == 0:
                raise ModelUnavailable("no summary today")
            return says(f"summary {self.summaries}")
        self.at += 1
        if self.at > len(self.steps):
            return says("done")
        calls = tuple(
            ToolCall(f"c{self.at}_{number}", "todo", json.dumps(arguments))
            for number, arguments in enumerate(self.steps[self.at - 1])
        )
        return msgspec.structs.replace(says(""), tool_calls=calls)

    async def close(self) -> None:
        return None


class Wire:
    """The worker's end of a channel: each frame crosses as bytes, until its worker is killed."""

    pending_bytes = 0
    full = False

    def __init__(self, hear: Callable[[ToPool], None]) -> None:
        self.hear = hear
        self._decoder = msgspec.msgpack.Decoder(cast("Any", ToPool))

    def send(self, frame: msgspec.Struct) -> None:
        self.hear(self._decoder.decode(msgspec.msgpack.encode(frame)))


class Parent:
    """The pool's end: a worker that is given conversations."""

    def __init__(self, take_history: Callable[[History], None]) -> None:
        self._take_history = take_history

    async def until_writable(self) -> None:
        return None

    def send(self, frame: ToWorker) -> None:
        assert isinstance(frame, History), frame
        self._take_history(msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=History))


class Host:
    """One store with the pool's turns, and one worker after the other."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.directory = directory
        self.engine = ENGINES[engine]
        self.model = StepModel()
        self.toolbox = Toolbox()
        self.store: Store
        self.turns: Turns
        self.conversations: HistoryLoader
        self.cache: SessionCache
        self.turn: ActiveTurn
        self._numbers = 0

    async def open(self) -> None:
        self.store = self.engine(self.directory, time.time, 100, 1.0)
        await self.store.open()
        events = Events()
        watch = StoreHealth(events)
        self.turns = Turns(
            self.store,
            events,
            watch,
            RecordingObserver(),
            Budgets(),
        )
        self.conversations = HistoryLoader(self.store, watch, WINDOW_TOKENS)
        self.replace_worker()

    async def close(self) -> None:
        await self.turns.flush()
        await self.store.close()

    def replace_worker(self) -> None:
        self.cache = SessionCache(100, 3600)

    async def accept(self, session: str, text: str, history: tuple[bytes, ...] = ()) -> None:
        self._numbers += 1
        message = f"msg_{self._numbers}"
        await self.store.inbox.accept(
            Arrival(message, session, "a", "ann", text, b"{}", (message,), 60.0, 1.0, history=history)
        )

    async def run(self, frames_heard: int | None = None) -> Outcome | None:
        """Run the turn that is ready; its worker is killed after so many frames, then it gives no outcome."""
        (claim,) = (await self.store.claims.claim("host", 1, 3600)).claims
        self.turn = turn = self.turns.begin(claim)
        self.model.at = len(claim.steps) + (claim.open_step is not None)
        outcomes: list[Outcome] = []
        tasks: list[asyncio.Future[Any]] = []
        killed = asyncio.Event()
        left = frames_heard if frames_heard is not None else sys.maxsize

        def hear(frame: ToPool) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                killed.set()
            elif isinstance(frame, NeedHistory):
                tasks.append(asyncio.ensure_future(self.conversations.send(turn, worker)))
            elif isinstance(frame, TurnDone):
                outcomes.append(frame.outcome)
            elif isinstance(frame, OfTurn):
                self.turns.said(turn, frame)

        worker = cast("WorkerProcess", Parent(lambda history: running.take_history(history)))  # noqa: PLW0108 - made later
        link = PoolChannel(cast("Channel[ToWorker, ToPool]", Wire(hear)))
        running = TurnRunner(turn.begin(worker, 60.0), self._equipment(), link)
        tasks += [asyncio.ensure_future(running.run()), asyncio.ensure_future(killed.wait())]
        await asyncio.wait(tasks[-2:], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not outcomes:
            self.replace_worker()
            return None
        self.turns.done(turn, "worker", outcomes[0])
        await self._settle()
        return outcomes[0]

    async def lose(self, outcome: Outcome) -> None:
        """End the turn of the worker that was killed."""
        self.turns.end(self.turn, outcome)
        await self._settle()

    async def _settle(self) -> None:
        await self.turns.flush()
        for news in self.turns.news.left():
            assert isinstance(news, ClaimSettled), news
            self.turns.settled(news)

    async def crash(self) -> None:
        """Kill the host as well: what it had not committed is gone."""
        await self.turns.close()
        await self.store.close()
        await self.open()
        await adopt(self.store, "the next life")

    def _equipment(self) -> Equipment:
        ring = LogRing(memoryview(bytearray(HEADER_BYTES + 4096)))
        log = SessionLog(self.directory, ring, 3600, lambda *_, **__: None)
        config = WorkerConfig((), "", context_tokens=WINDOW_TOKENS)
        return Equipment(config, self.model, self.toolbox, self.cache, log)


class TodoLaw(RuleBasedStateMachine):
    """Sessions that talk, are killed, compacted, imported and rewritten."""

    engine: str
    sessions: Bundle[str] = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._host = Host(Path(self._directory.name), self.engine)
        self._sheets: dict[str, Sheet] = {}
        self._do(self._host.open())

    def teardown(self) -> None:
        self._do(self._host.close())
        self._host.toolbox.close()
        self._runner.close()
        self._directory.cleanup()

    @rule(target=sessions, history=HISTORIES, steps=STEPS, kills=KILLS)
    def begin(self, history: Shown, steps: Steps, kills: list[Kill]) -> str:
        """A new session, imported if it has a history."""
        session = f"a:b:{len(self._sheets)}"
        self._sheets[session] = Sheet(None, history.items)
        self._do(self._talk(session, steps, kills, "x", history.messages))
        return session

    @rule(session=sessions, steps=STEPS, kills=KILLS, length=st.sampled_from([1, 700, 3000]))
    def talk(self, session: str, steps: Steps, kills: list[Kill], length: int) -> None:
        """A turn, killed as often as told, in a conversation that outgrows its window."""
        self._do(self._talk(session, steps, kills, "x" * length))

    @rule(session=sessions, steps=STEPS, heard=st.integers(0, 12))
    def die(self, session: str, steps: Steps, heard: int) -> None:
        """A turn whose message is given up: what it did to the list goes with it."""

        async def run() -> None:
            bare = await self._is_bare(session)
            await self._accept(session, steps)
            if await self._host.run(heard) is None:
                await self._host.lose(Dead(3, "its worker died", ""))
            else:
                self._sheets[session].turn(steps, bare=bare)

        self._do(run())

    @rule(session=sessions, history=HISTORIES, items=st.none() | st.just([]) | ITEMS, steps=STEPS)
    def rewrite(self, session: str, history: Shown, items: Items | None, steps: Steps) -> None:
        """Another history takes the place of the session's, with a list or without one, and it talks on."""

        async def run() -> None:
            before = await self._host.store.sessions.conversation(session)
            todo = None if items is None else msgspec.json.encode(items)
            found = Conversation(before.version, tuple(history.messages), todo)
            await rewrite(self._host.store, session, found)

        self._do(run())
        self._sheets[session].rewritten(items, history.items)
        if steps:
            self._do(self._talk(session, steps, [], "x"))

    @rule()
    def restart(self) -> None:
        """Everything ends and starts again."""
        self._do(self._host.crash())

    @rule()
    def move(self) -> None:
        """The sessions go to a worker that knows none of them."""
        self._host.replace_worker()

    @invariant()
    def the_store_has_the_list_of_the_model(self) -> None:
        for session, sheet in self._sheets.items():
            todo = self._do(self._host.store.sessions.conversation(session, 0)).todo
            found = None if todo is None else json.loads(todo)
            assert sheet.stored(found), (found, sheet.items)

    async def _talk(
        self, session: str, steps: Steps, kills: list[Kill], text: str, history: tuple[bytes, ...] = ()
    ) -> None:
        bare = not history and await self._is_bare(session)
        await self._accept(session, steps, text, history)
        for heard, whole in kills:
            if await self._host.run(heard) is not None:
                break
            await (self._host.crash() if whole else self._host.lose(Retry(0, 1, False, "its worker died")))
        else:
            outcome = await self._host.run()
            assert isinstance(outcome, Ended), outcome
            assert outcome.text == "done", outcome.error
        self._sheets[session].turn(steps, bare=bare)
        if any(steps):
            (result,) = (await self._host.store.sessions.conversation(session, 2)).messages[:1]
            assert json.loads(json.loads(result)["content"])["todos"] == (self._sheets[session].items or [])

    async def _accept(self, session: str, steps: Steps, text: str = "x", history: tuple[bytes, ...] = ()) -> None:
        self._host.model.steps = steps
        await self._host.accept(session, text, history)

    async def _is_bare(self, session: str) -> bool:
        return not (await self._host.store.sessions.conversation(session, 1)).messages

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_list_of_a_session_is_that_of_the_model(engine: str) -> None:
    run_machine(TodoLaw, engine, steps=12)
