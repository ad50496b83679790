"""A small worker child that does what a turn's text says; as real as the product's, in processes of its own.

``steps N`` finishes N steps and replies; ``sleep S`` awaits; ``block`` blocks the loop; ``hold`` holds the GIL in C;
``thread`` holds the GIL from a thread; ``exit N`` ends the process; ``grandchild FILE`` starts a program, writes its
pid and blocks; ``daemon FILE`` starts one in a session of its own that its parent leaves, and awaits; ``history``
replies with the history; ``big N`` replies with N bytes; anything else is echoed.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import subprocess
import threading
import time
from pathlib import Path

import msgspec

from shared.messages import Ended, Parked, Step, TurnStatus, Usage
from worker.channel import Channel, open_channel
from worker.frames import (
    Configure,
    Drain,
    Drained,
    History,
    Interrupt,
    NeedHistory,
    Ready,
    Report,
    RunTurn,
    StepDone,
    ToPool,
    ToWorker,
    TurnDone,
)
from worker.shared_page import SharedPage

ENTRY = "tests.worker.pool.children"


def message(role: str, text: str) -> bytes:
    return msgspec.json.encode({"role": role, "content": text})


def hold_the_gil() -> None:
    re.match(r"(a+)+$", "a" * 40 + "b")


class Child:
    """The parent's orders, obeyed."""

    def __init__(self, page: SharedPage) -> None:
        self.page = page
        self.over = asyncio.Event()
        self.draining = asyncio.Event()
        self.turns: dict[int, asyncio.Task[None]] = {}
        self.histories: dict[int, asyncio.Future[History]] = {}
        self.cached: set[str] = set()
        self.channel: Channel[ToWorker, ToPool] | None = None

    def send(self, frame: ToPool) -> None:
        if self.channel is not None and not self.channel.closed:
            self.channel.send(frame)

    def beat(self) -> None:
        self.page.beat()
        asyncio.get_running_loop().call_later(0.05, self.beat)

    def report(self) -> None:
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.send(Report(1, 2, len(self.cached), rss, 0, 0, 0))
        asyncio.get_running_loop().call_later(0.2, self.report)

    def on_frame(self, frame: ToWorker) -> None:
        match frame:
            case Configure(config=config):
                if config.system_prompt == "never ready":
                    return
                if config.system_prompt == "die at once":
                    os._exit(7)
                self.send(Ready(os.getpid(), True, ()))
            case RunTurn():
                self.turns[frame.turn] = asyncio.get_running_loop().create_task(self.run(frame))
            case History():
                self.histories[frame.turn].set_result(frame)
            case Interrupt(turn=turn):
                if turn in self.turns:
                    self.turns[turn].cancel()
            case Drain():
                self.draining.set()

    async def run(self, order: RunTurn) -> None:
        self.page.set_running(order.turn)
        try:
            outcome: Ended | Parked = await self.obey(order)
        except asyncio.CancelledError:
            outcome = Ended(TurnStatus.INTERRUPTED, "Stopped.", (message("user", order.texts[0]),))
        self.page.set_running(0)
        self.turns.pop(order.turn, None)
        self.send(TurnDone(order.turn, outcome))

    async def obey(self, order: RunTurn) -> Ended | Parked:
        verb, _, rest = order.texts[0].partition(" ")
        match verb:
            case "steps":
                return await self.steps(order, int(rest.split()[0]), float(rest.split()[1]))
            case "sleep":
                await self.pause(float(rest))
            case "stubborn":
                await self.stubborn(float(rest))
            case "block":
                time.sleep(3600)  # noqa: ASYNC251 (the point of it)
            case "hold":
                hold_the_gil()
            case "thread":
                await self.pause(0.05)
                threading.Thread(target=hold_the_gil, daemon=True).start()
                await self.pause(3600)
            case "exit":
                os._exit(int(rest))
            case "grandchild":
                program = subprocess.Popen(["sleep", "3600"])  # noqa: ASYNC220 (blocks on purpose)
                Path(rest).write_text(str(program.pid))  # noqa: ASYNC240 (blocks on purpose)
                time.sleep(3600)  # noqa: ASYNC251 (blocks on purpose)
            case "daemon":
                script = f"setsid sh -c 'echo $$ > {rest}; exec sleep 3600' &"
                subprocess.run(["sh", "-c", script], check=True)  # noqa: ASYNC221 (in a moment)
                await self.pause(3600)
            case "history":
                return self.reply(order, await self.history(order))
            case "big":
                return self.reply(order, "x" * int(rest))
        return self.reply(order, "echo: " + order.texts[0])

    async def pause(self, seconds: float) -> None:
        """Sleep as a turn that yields: nothing runs on the loop meanwhile."""
        self.page.set_running(0)
        await asyncio.sleep(seconds)

    async def stubborn(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                await self.pause(seconds)
            except asyncio.CancelledError:
                continue

    async def steps(self, order: RunTurn, count: int, each_s: float) -> Ended | Parked:
        for number in range(len(order.steps) + 1, count + 1):
            first = (message("user", order.texts[0]),) if number == 1 else ()
            todo = msgspec.json.encode([{"id": "1", "content": f"after {number}", "status": "pending"}])
            step = Step(number, (*first, message("assistant", f"step {number} by {os.getpid()}")), todo, Usage(1, 1))
            self.send(StepDone(order.turn, step))
            if self.draining.is_set():
                return Parked()
            await self.pause(each_s)
        return self.reply(order, f"did {count}, resumed after {len(order.steps)}", first=count == 0)

    async def history(self, order: RunTurn) -> str:
        if order.session in self.cached:
            return "cached"
        future = self.histories[order.turn] = asyncio.get_running_loop().create_future()
        self.send(NeedHistory(order.turn))
        self.page.set_running(0)
        history = await future
        self.cached.add(order.session)
        return f"version {history.version}, {len(history.messages)} messages"

    def reply(self, order: RunTurn, text: str, *, first: bool = True) -> Ended:
        messages = (message("user", order.texts[0]),) if first else ()
        return Ended(TurnStatus.REPLIED, text, (*messages, message("assistant", text)), usage=Usage(1))

    async def live(self, sock: socket.socket) -> None:
        self.channel = await open_channel(sock, ToWorker, self.on_frame, lambda reason: self.over.set())
        self.beat()
        self.report()
        ends = [asyncio.ensure_future(event.wait()) for event in (self.over, self.draining)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        while self.turns and not self.over.is_set():
            await asyncio.wait([*self.turns.values(), ends[0]], return_when=asyncio.FIRST_COMPLETED)
        self.send(Drained())
        for end in ends:
            end.cancel()


async def live(sock: socket.socket, page: SharedPage) -> None:
    await Child(page).live(sock)


def run(sock: socket.socket, page: SharedPage) -> None:
    """Be a worker until the channel closes or the drain is done."""
    asyncio.run(live(sock, page))
