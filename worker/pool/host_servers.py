"""The MCP servers that all workers of this machine share, in one process of their own.

worker ── HostCall ──> pool ── HostCall ──> the process of the servers ── HostCallEnded ──> pool ──> worker

The pool passes frames on and reads no server's words itself. A process that ends or hangs is started again, and the
calls that it had end with an error; a worker that ends costs its own calls alone.
"""

from __future__ import annotations

import asyncio
import itertools

import msgspec

from shared.events import Event, Events, Field
from worker.frames import (
    HostCall,
    HostCallDropped,
    HostCallEnded,
    HostCallSaid,
    HostTools,
    LogEvent,
    ToHostServers,
    ToPool,
    WorkerConfig,
)
from worker.mcp_server import McpStatus, RunScope, lost, not_running
from worker.pool.faults import tell_fault
from worker.pool.hang_detector import LOOK_S, HangDetector, Hung, Limits
from worker.pool.loops import Loops
from worker.pool.processes.worker_process import FrameReceived, WorkerEnded, WorkerNews, WorkerPlaced, WorkerProcess
from worker.pool.supervisor import Supervisor

ENTRY = "worker.agent.mcp_child"
#: seconds a call waits for a process that is being started
CALL_WAIT_S = 5.0
#: seconds the servers get to end in peace
CLOSE_WAIT_S = 6.0


class McpEvents(Events):
    """The events of workers, said of the process of the servers: it has no slot."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self._events = events

    def emit(self, event: Event, **fields: Field) -> None:
        """Say an event of that process."""
        self._events.emit(event, **{"process": "mcp"} | {name: fields[name] for name in fields if name != "n"})


class _Call(msgspec.Struct):
    """A call that has no result yet."""

    #: who made it
    worker: WorkerProcess
    #: as the process of the servers is told of it
    frame: HostCall
    #: its number at the worker
    number: int
    #: whether the process was told of it
    sent: bool = False


class HostServers:
    """Owns the process of the servers, and the calls on their way; without such servers it does nothing."""

    def __init__(self, config: WorkerConfig, limits: Limits, events: Events, beside: Supervisor) -> None:
        shared = tuple(server for server in config.mcp_servers if server.scope is RunScope.HOST)
        self._servers = [server.name for server in shared]
        self._events = McpEvents(events)
        # the same fork server as the workers', which imports what the models need; their keys stay with the workers
        models = tuple(msgspec.structs.replace(model, api_key="") for model in config.all_models)
        own = WorkerConfig(models, "", mcp_servers=shared, fetch_allow=config.fetch_allow)
        self._supervisor = Supervisor(1 if shared else 0, 0, own, self._events, entry=ENTRY, beside=beside)
        self._hang_detector = HangDetector(limits)
        self._process: WorkerProcess | None = None
        self._workers: set[WorkerProcess] = set()
        self._offered: dict[str, HostTools] = {}
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}

    @property
    def status(self) -> tuple[McpStatus, ...]:
        """How each server is, in the order of the configuration."""
        if self._process is not None and self._process.report.mcp:
            return self._process.report.mcp
        return tuple(
            McpStatus(name, up=False, tools=0, problem="its process is being started") for name in self._servers
        )

    def start(self, loops: Loops) -> None:
        """Begin to start the process; returns at once."""
        if self._servers:
            self._supervisor.start()
            loops.spawn("acting on shared MCP servers", self._run())
            loops.always("looking for hung MCP servers", self._look)

    def serve(self, worker: WorkerProcess) -> None:
        """Tell a worker that takes turns from now on what the servers offer."""
        self._workers.add(worker)
        for offered in self._offered.values():
            worker.send(offered)

    def worker_ended(self, worker: WorkerProcess) -> None:
        """Drop the calls of a worker that is gone."""
        self._workers.discard(worker)
        for number in [number for number, call in self._calls.items() if call.worker is worker]:
            self._drop(number)

    def frame_came(self, worker: WorkerProcess, frame: ToHostServers) -> None:
        """Pass on a call of a worker, or that nobody waits for one any more."""
        match frame:
            case HostCall():
                number = next(self._numbers)
                renumbered = msgspec.structs.replace(frame, number=number)
                self._calls[number] = call = _Call(worker, renumbered, frame.number)
                self._send(call)
                if not call.sent:
                    asyncio.get_running_loop().call_later(CALL_WAIT_S, self._give_up, number)
            case HostCallDropped():
                for number, call in list(self._calls.items()):
                    if call.worker is worker and call.number == frame.number:
                        self._drop(number)

    async def _look(self) -> None:
        """Have the process killed where its loop hangs."""
        await asyncio.sleep(LOOK_S)
        for finding in self._hang_detector.look([self._process] if self._process else [], ()):
            if isinstance(finding, Hung):
                await self._supervisor.end_hung(finding.worker, finding.death)

    async def close(self) -> None:
        """End the servers in peace, then the process."""
        process, self._process = self._process, None
        self._supervisor.drain_all()
        if process is not None:
            await asyncio.wait([asyncio.ensure_future(process.gone.wait())], timeout=CLOSE_WAIT_S)
        await self._supervisor.close()

    async def _run(self) -> None:
        async for news in self._supervisor.news:
            try:
                self._act(news)
            except Exception as error:  # noqa: BLE001 - the boundary: the next news are acted on
                tell_fault(self._events, f"acting on {type(news).__name__} of MCP servers", error)

    def _act(self, news: WorkerNews) -> None:
        match news:
            case WorkerPlaced(worker=process):
                self._process = process
                for call in self._calls.values():
                    self._send(call)
            case FrameReceived(worker=process, frame=frame):
                self._process_said(process, frame)
            case WorkerEnded(worker=process):
                if self._process is process:
                    self._process = None
                for number, call in list(self._calls.items()):
                    if call.sent:
                        self._end(number, HostCallEnded(call.number, lost(call.frame.server), failed=True))

    def _process_said(self, process: WorkerProcess, frame: ToPool) -> None:
        match frame:
            case HostTools():
                self._offered[frame.server] = frame
                for worker in self._workers:
                    worker.send(frame)
            case HostCallSaid(number=number) if call := self._calls.get(number):
                call.worker.send(HostCallSaid(call.number, frame.text))
            case HostCallEnded(number=number) if call := self._calls.get(number):
                self._end(number, msgspec.structs.replace(frame, number=call.number))
            case LogEvent():
                process.tell(self._events, frame)

    def _send(self, call: _Call) -> None:
        if self._process is not None and self._process.usable and not call.sent:
            call.sent = self._process.send(call.frame)

    def _give_up(self, number: int) -> None:
        """End a call whose process has not come in time."""
        if (call := self._calls.get(number)) and not call.sent:
            self._end(number, HostCallEnded(call.number, not_running(call.frame.server), failed=True))

    def _end(self, number: int, frame: HostCallEnded) -> None:
        self._calls.pop(number).worker.send(frame)

    def _drop(self, number: int) -> None:
        if self._calls.pop(number).sent and self._process is not None:
            self._process.send(HostCallDropped(number))
