"""A worker's child: the loop that takes frames from the pool, runs many turns at once, and beats.

Configure ─> Ready              RunTurn ─> (NeedHistory ─> History) ─> StepDone … ─> TurnDone
Drain ─> every turn parked or done ─> logs written ─> Drained ─> the process ends
end of the channel ─> the whole process group ends
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import uvloop

from shared.errors import SettingsError
from shared.events import Event
from shared.messages import Parked
from shared.redaction import Redaction
from worker import os_processes
from worker.agent.attachments import AttachmentCache
from worker.agent.equipment import Agent, Equipment
from worker.agent.heartbeats import Heartbeats
from worker.agent.models import build_chains
from worker.agent.pool_channel import PoolChannel, PoolLogHandler
from worker.agent.session_cache import SessionCache
from worker.agent.session_log import SessionLog
from worker.agent.turn_attribution import TurnAttribution
from worker.agent.turn_runner import TurnRunner
from worker.channel import Channel, open_channel
from worker.frames import (
    AllowanceGranted,
    AttachmentData,
    Configure,
    Drain,
    Drained,
    Forget,
    History,
    HostCallEnded,
    HostCallSaid,
    HostTools,
    IntentCommitted,
    Interrupt,
    Park,
    Ready,
    Report,
    RunTurn,
    Serve,
    Steer,
    ToPool,
    ToWorker,
    TurnDone,
    WorkerConfig,
)
from worker.session_log.ring import LogRing
from worker.shared_page import SharedPage
from worker.tools.mcp import McpServers
from worker.tools.toolbox import Toolbox

REPORT_S = 1.0
#: seconds a worker that nobody waits for may take to write its logs
LAST_WRITE_S = 0.5
#: seconds to write the logs, and to send the last frames, in a drain
DRAIN_WRITE_S = 5.0
WARM_MODULE = "worker.forkserver.preload"


def run(sock: socket.socket, page: SharedPage) -> None:
    """Run turns until the drain is done, which ends the process, or the channel closes, which ends its whole group."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    child = Child(page, loop)
    loop.run_until_complete(child.serve(sock))
    loop.run_forever()


class Child:
    """Owns the turns of this process and what they share."""

    def __init__(self, page: SharedPage, loop: asyncio.AbstractEventLoop) -> None:
        self._page = page
        self._loop = loop
        self._attribution = TurnAttribution(page.set_running)
        self._turns: dict[int, TurnRunner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._equipment: Equipment | None = None
        self._draining = False
        self._heartbeats = Heartbeats(page, loop)
        self._pool: PoolChannel
        self._mcp: McpServers

    async def serve(self, sock: socket.socket) -> None:
        """Open the channel; from here on frames and timers act."""
        self._attribution.install(self._loop)
        channel: Channel[ToWorker, ToPool] = await open_channel(sock, ToWorker, self._on_frame, self._on_closed)
        self._pool = PoolChannel(channel)
        logging.getLogger().addHandler(PoolLogHandler(self._pool))
        self._heartbeats.beat()

    def _on_frame(self, frame: ToWorker) -> None:
        match frame:
            case Configure():
                self._configure(frame.config)
            case Serve():
                self._serve()
            case RunTurn():
                self._start_turn(frame)
            case History():
                if frame.turn in self._turns:
                    self._turns[frame.turn].take_history(frame)
            case AttachmentData():
                if frame.turn in self._turns:
                    self._turns[frame.turn].take_attachment(frame)
            case AllowanceGranted():
                if frame.turn in self._turns:
                    self._turns[frame.turn].take_allowance(frame.allowance)
            case IntentCommitted():
                if frame.turn in self._turns:
                    self._turns[frame.turn].take_intent_kept(frame.call_id)
            case Steer():
                if frame.turn in self._turns:
                    self._turns[frame.turn].steer(frame.words)
            case Interrupt():
                if frame.turn in self._turns:
                    self._turns[frame.turn].interrupt()
            case Park():
                if frame.turn in self._turns:
                    self._turns[frame.turn].park_now()
            case Drain():
                self._drain()
            case Forget():
                self._forget(frame.session)
            case HostTools() | HostCallSaid() | HostCallEnded():
                if self._equipment is not None:
                    self._mcp.take(frame)

    def _configure(self, config: WorkerConfig) -> None:
        self._heartbeats.interval_s = config.beat_s
        self._pool.hide(config.secrets())
        try:
            self._equipment = equip(config, self._page, self._pool)
        except Exception as error:  # noqa: BLE001 - the boundary: the host is told why this worker cannot start
            problem = str(error) if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}"
            self._pool.emit(Event.WORKER_FAILED_TO_START, error=problem)
            self._keep(self._loop.create_task(self._leave(status=1)))
            return
        self._equipment.log.start()
        self._mcp = McpServers(config.mcp_servers, self._equipment.toolbox, self._pool.emit, self._pool.send)
        self._report()
        self._heartbeats.forget_lag()
        self._pool.send(Ready(os.getpid(), warmed() is not None, self._equipment.toolbox.names))

    def _serve(self) -> None:
        """Start the MCP servers: a spare has none, or each would run once more for nobody."""
        if self._equipment is not None and not self._draining:
            self._keep(self._loop.create_task(self._mcp.start()))

    def _start_turn(self, frame: RunTurn) -> None:
        if self._equipment is None or self._draining:
            self._pool.send(TurnDone(frame.turn, Parked()))
            return
        turn = self._turns[frame.turn] = TurnRunner(frame, self._equipment, self._pool)
        task = self._attribution.start(frame.turn, self._run(turn), self._loop)
        self._keep(task)
        task.add_done_callback(lambda _: self._turn_done(frame.turn))

    def _forget(self, session: str) -> None:
        if self._equipment is not None:
            self._equipment.cache.forget(session)
            self._equipment.attachments.forget(session)
            self._mcp.forget(session)
        for turn in self._turns.values():
            if turn.session == session:
                turn.forget()

    async def _run(self, turn: TurnRunner) -> None:
        """Run a turn, once the MCP servers were tried; a slow one is waited for no longer than a moment."""
        await self._mcp.start()
        await turn.run()

    def _turn_done(self, number: int) -> None:
        self._turns.pop(number, None)
        if self._draining and not self._turns:
            self._keep(self._loop.create_task(self._finish_drain()))

    def _drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        for turn in self._turns.values():
            turn.park()
        if not self._turns:
            self._keep(self._loop.create_task(self._finish_drain()))

    async def _finish_drain(self) -> None:
        if self._equipment is not None:
            await self._mcp.close()
            # the one use of the default executor: joining the log's thread must not stop the beat
            await asyncio.to_thread(self._equipment.log.close, DRAIN_WRITE_S)
            self._report()
        self._pool.send(Drained())
        await self._leave(status=0)

    async def _leave(self, status: int) -> NoReturn:
        await self._pool.sent(DRAIN_WRITE_S)
        end_process(status)

    def _on_closed(self, _reason: Exception | None) -> None:
        """The pool is gone: write the logs, for nobody else can, and end all that runs here."""
        if self._equipment is not None:
            closing = threading.Thread(target=self._equipment.log.close, args=(LAST_WRITE_S,), daemon=True)
            closing.start()
            closing.join(LAST_WRITE_S)
        end_group()

    def _report(self) -> None:
        equipment = self._equipment
        if equipment is None:
            return
        cache, log = equipment.cache, equipment.log
        cache.expire()
        self._pool.send(
            Report(
                cache.hits,
                cache.misses,
                cache.size,
                os_processes.rss_bytes(),
                equipment.toolbox.leaked,
                log.written,
                log.failed,
                log.lost,
                self._mcp.status,
            )
        )
        self._loop.call_later(REPORT_S, self._report)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def equip(config: WorkerConfig, page: SharedPage, pool: PoolChannel) -> Equipment:
    """Make what the turns use. Raises SettingsError for tools that cannot be loaded."""
    ring, hidden = LogRing(page.ring_memory), Redaction(config.secrets())
    log = SessionLog(Path(config.log_dir), ring, config.log_flush_interval_s, pool.emit, redaction=hidden)
    cache = SessionCache(config.todo_cache_size, config.todo_cache_ttl_s)
    toolbox = Toolbox(config.tool_modules, pool.emit, fetch_allow=config.fetch_allow, threads=config.tool_threads)
    warm = warmed()
    models = build_chains(config, pool.emit, warm.TLS_CONTEXT if warm else None)
    agents = {
        profile.name: Agent(
            models[profile.name],
            toolbox.only(profile.tools),
            profile.system_prompt,
            profile.context_tokens,
            profile.texts,
        )
        for profile in config.profiles
    }
    return Equipment(config, models[""], toolbox, cache, log, AttachmentCache(), page, agents)


def warmed() -> ModuleType | None:
    """Return the preload's module if the fork server had it when this process was forked from it.

    Never imported here: importing it acts, and is for the fork server alone.
    """
    warm = sys.modules.get(WARM_MODULE)
    return warm if warm is not None and os.getpid() != warm.WARMED_BY else None


def leads_group() -> bool:
    """Tell whether this process leads its group, so that the group is its own to end."""
    return os.getpgrp() == os.getpid()


def end_group() -> NoReturn:
    """End this process and everything its tools started, at once."""
    if leads_group():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def end_process(status: int) -> NoReturn:
    """End this process in peace, and ask what its tools started to end; no thread is waited for."""
    if leads_group():
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGTERM)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
