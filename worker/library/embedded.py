"""A worker inside the caller's process, for library use: the same turns, on a loop of its own in one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from shared.events import Emit
from shared.messages import Ended
from worker.agent.models import build_chain
from worker.agent.models.port import CallWatch, Model, ModelReply, ModelRequest
from worker.agent.progress import TurnNews
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.frames import ModelSpec, WorkerConfig
from worker.library.loop_thread import LoopThread
from worker.library.turn_report import TurnReport
from worker.tools.mcp import McpServers
from worker.tools.spec import ToolSpec
from worker.tools.toolbox import Toolbox

T = TypeVar("T")


class _Heard:
    """A model that remembers who answered last: in a chain it may be any of them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.last: ModelReply | None = None

    @property
    def name(self) -> str:
        return self._model.name

    async def reply(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        self.last = await self._model.reply(request, on_text, timeout=timeout, watch=watch)
        return self.last

    async def close(self) -> None:
        await self._model.close()


class EmbeddedWorker:
    """Owns a loop, the models and the tools; its methods are for other threads and wait for their result."""

    def __init__(self, config: WorkerConfig, emit: Emit) -> None:
        self._config = config
        self._emit = emit
        self._models: dict[tuple[ModelSpec, ...], Model] = {}
        self._turns: set[Turn] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self._toolbox: Toolbox | None = None
        self._mcp: McpServers | None = None
        self._loop = LoopThread("agent")
        try:
            self._toolbox = self._loop.run(self._load_tools())
        except BaseException:
            self._loop.close(self._close())
            raise

    def run_turn(self, request: TurnRequest, todo: TodoStore, progress: TurnNews) -> TurnReport:
        """Run one turn to its end."""
        return self._loop.run(self._run_turn(request, todo, progress))

    def reply(self, request: ModelRequest, timeout: float, models: tuple[ModelSpec, ...]) -> ModelReply:
        """Call a model once, or the next of them. Raises what a Model raises, and InterruptedError."""
        return self._loop.run(self._interruptible(self._reply(request, timeout, models)))

    def refuse_own_thread(self) -> None:
        """Raise RuntimeError for a caller on the worker's own thread, before it waits for itself."""
        self._loop.refuse_own_thread()

    def tools(self) -> tuple[ToolSpec, ...]:
        """Return what the models are told of the tools."""
        return self._toolbox.specs() if self._toolbox is not None else ()

    def interrupt(self) -> None:
        """End every turn and call that runs; returns at once."""
        self._loop.soon(self._interrupt)

    def close(self) -> None:
        """End what runs, close every connection and end the threads."""
        self._loop.soon(self._interrupt)
        if self._mcp is not None:
            self._loop.soon(self._mcp.stop)
        self._loop.close(self._close())

    async def _load_tools(self) -> Toolbox:
        toolbox = Toolbox(self._config.tool_modules, self._emit, fetch_allow=self._config.fetch_allow)
        self._mcp = McpServers(self._config.mcp_servers, toolbox, self._emit)
        await self._mcp.start()
        return toolbox

    async def _run_turn(self, request: TurnRequest, todo: TodoStore, progress: TurnNews) -> TurnReport:
        heard = _Heard(self._model(self._config.models))
        assert self._toolbox is not None  # noqa: S101 - loaded before the first turn can come
        turn = Turn(request, heard, self._toolbox, todo, progress)
        self._turns.add(turn)
        try:
            ended = await turn.run()
        finally:
            self._turns.discard(turn)
        assert isinstance(ended, Ended)  # noqa: S101 - nobody here parks a turn
        first = self._config.models[0]
        provider, model = (heard.last.provider, heard.last.model) if heard.last else (first.provider, first.model)
        return TurnReport(ended, tuple(turn.messages), turn.usage, provider, model)

    async def _reply(self, request: ModelRequest, timeout: float, models: tuple[ModelSpec, ...]) -> ModelReply:
        return await self._model(models).reply(request, timeout=timeout)

    async def _interruptible(self, call: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(call)
        self._calls.add(task)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._calls.discard(task)
        if task.cancelled():
            raise InterruptedError("the model call was interrupted")
        return task.result()

    def _model(self, models: tuple[ModelSpec, ...]) -> Model:
        """Return the chain of these models, kept open for the next call."""
        if models not in self._models:
            config = msgspec.structs.replace(self._config, models=models)
            self._models[models] = build_chain(config, self._emit)
        return self._models[models]

    def _interrupt(self) -> None:
        for turn in self._turns:
            turn.interrupt()
        for task in self._calls:
            task.cancel()

    async def _close(self) -> None:
        if self._mcp is not None:
            await self._mcp.close()
        for model in self._models.values():
            await model.close()
        if self._toolbox is not None:
            self._toolbox.close()
