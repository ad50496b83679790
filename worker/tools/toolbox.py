"""The table of tools: what the model is told of them, and how a call is run."""

from __future__ import annotations

import asyncio
import copy
import re
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import FrameType
from typing import Any

from shared.errors import SettingsError, ToolError
from shared.events import Emit, Event, Field
from shared.profiles import ToolChoice
from worker.tools import builtin
from worker.tools.context import ToolContext
from worker.tools.declaration import Run, Tool, ToolOptions
from worker.tools.modules import SETTING, import_module, module_tools
from worker.tools.results import clip, error_text, error_words, result_text
from worker.tools.spec import ToolCall, ToolSpec
from worker.tools.threads import THREAD_LIMIT, ToolThreads

OnResult = Callable[[str], None]

TODO_LIMIT_BYTES = 8 * 1024 * 1024
#: seconds that a cancelled tool gets to clean up; one that goes on is left behind
CANCEL_GRACE_S = 0.4
FRAMES_TOLD = 50
#: what every provider takes as a name
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: names that a model is told where it asks for a tool that is not there
NAMES_TOLD = 50


def tell_nobody(_: str) -> None:
    """Drop the result."""


def _emit_nothing(event: Event, **fields: Field) -> None:
    """Drop the event."""


class _Result:
    """What became of one call, told once; nothing more is told of one that was given up."""

    __slots__ = ("_on_result", "given_up", "text")

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result
        self.given_up = False
        self.text: str | None = None

    def tell(self, text: str) -> str:
        self.text = text
        self._on_result(text)
        return text


class Toolbox:
    """The tools of one worker: the built-in ones and those of the named modules; used on one loop.

    ``fetch`` is one of them where ``fetch_allow`` names hosts. ``emit(event, **fields)`` is told of failed and leaked
    calls. Raises SettingsError, which names GATEHOUSE_TOOLS, for a module that cannot be imported or a function that
    cannot be a tool.
    """

    def __init__(
        self,
        modules: Iterable[str] = (),
        emit: Emit = _emit_nothing,
        *,
        fetch_allow: Sequence[str] = (),
        threads: int = THREAD_LIMIT,
    ) -> None:
        self._emit = emit
        self._threads = ToolThreads(emit, threads)
        self._stray: set[asyncio.Task[Any]] = set()
        self._own: dict[str, Tool] = {}
        self._lent: dict[str, tuple[Tool, ...]] = {}
        self._tools: dict[str, Tool] = {}
        self._lenders: dict[str, str] = {}
        self._choice = ToolChoice()
        # a full list of 256 items of 4,000 characters is a result that must stay whole JSON
        self.add(builtin.todo_spec(), builtin.run_todo, ToolOptions("todo", output_limit_bytes=TODO_LIMIT_BYTES))
        for tool in module_tools(builtin, self._threads):
            self._put(tool)
        if fetch_allow:
            from worker.tools.fetch import fetch_tool

            self._put(fetch_tool(fetch_allow))
        for name in modules:
            self._load(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tools, in the order the model sees them."""
        return tuple(name for name in self._tools if self._offers(name))

    @property
    def leaked(self) -> int:
        """How many threads and tasks run a call that nobody waits for."""
        return self._threads.leaked + len(self._stray)

    @property
    def undescribed(self) -> tuple[str, ...]:
        """The names of the tools of which a model reads nothing but their name."""
        return tuple(name for name, tool in self._tools.items() if not tool.spec.description.strip())

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return what a model is told, always in the same order, which keeps the provider's prompt cache."""
        return tuple(self._tools[name].spec for name in self.names)

    def only(self, choice: ToolChoice) -> Toolbox:
        """Return the same tools, of which those of a choice alone are offered and run."""
        chosen = copy.copy(self)  # what the tools are in, and what counts them, is one for both
        chosen._choice = choice
        return chosen

    def retry_safe(self, name: str) -> bool:
        """Tell whether a call that may have happened may be made again."""
        return name not in self._tools or self._tools[name].options.retry_safe

    def approval_within_s(self, name: str) -> float | None:
        """Return the seconds in which the sender has to allow a call of a tool, None for one that needs no word."""
        options = self._tools[name].options if name in self._tools else None
        return options.approve_within_s if options is not None and options.approve else None

    def add(self, spec: ToolSpec, run: Run, options: ToolOptions | None = None) -> None:
        """Add one tool that is no decorated function."""
        self._put(Tool(spec, options or ToolOptions(spec.name), run))

    def lend(self, owner: str, tools: Iterable[Tool]) -> list[str]:
        """Show the tools of an owner, such as an MCP server, in the place of those it lent before.

        An owner keeps its place in the order; a name that is taken stays with who had it first. Returns the names that
        are taken.
        """
        self._lent[owner] = tuple(tools)
        self._tools.clear()
        self._tools.update(self._own)
        self._lenders.clear()
        for lender, tool in ((lender, tool) for lender, lent in self._lent.items() for tool in lent):
            if self._tools.setdefault(tool.spec.name, tool) is tool:
                self._lenders[tool.spec.name] = lender
        return [tool.spec.name for tool in self._lent[owner] if self._tools[tool.spec.name] is not tool]

    async def call(self, call: ToolCall, context: ToolContext, on_result: OnResult = tell_nobody) -> str:
        """Run one call and return its result, or in words for the model why there is none.

        ``on_result`` is told the same in the round of the loop in which the tool ends, before another call can hang it.
        Raises what that raises, and CancelledError.
        """
        tool = self._tools.get(call.name) if self._offers(call.name) else None
        if tool is None:
            text = f"Error: there is no tool named {call.name!r}; there are {', '.join(self.names[:NAMES_TOLD])}."
            on_result(text)
            return text
        began_at = time.monotonic()
        try:
            return await self._bounded(tool, call, context, on_result)
        finally:
            context.stop()
            seconds = round(time.monotonic() - began_at, 6)
            self._emit(Event.TOOL_ENDED, tool=call.name, session=context.session, call=call.id, seconds=seconds)

    def leave_behind(
        self, call: ToolCall, session: str, task: asyncio.Task[Any], coroutine: Coroutine[Any, Any, Any] | None = None
    ) -> None:
        """Count a call that goes on though it was cancelled, until it ends; ``coroutine`` is what its task runs."""
        self._stray.add(task)
        task.add_done_callback(self._stray.discard)
        stack = _stack(coroutine or task.get_coro())
        self._emit(Event.TOOL_LEAKED, tool=call.name, session=session, leaked=self.leaked, stack=stack)

    def close(self) -> None:
        """End the threads that wait for work."""
        self._threads.close()

    async def _bounded(self, tool: Tool, call: ToolCall, context: ToolContext, on_result: OnResult) -> str:
        """Run a call within its time, in a task of its own."""
        result = _Result(on_result)
        coroutine, limit_s = self._told(tool, call, context, result), tool.options.timeout_s
        running = asyncio.ensure_future(coroutine)
        running.add_done_callback(_looked_at)
        try:
            await asyncio.wait({running}, timeout=limit_s)
        except asyncio.CancelledError:
            if not running.done():
                await self._give_up(call, context, running, coroutine, result)
                raise
            if waiting := asyncio.current_task():
                waiting.uncancel()  # too late: its result is out
        if not running.done():
            await self._give_up(call, context, running, coroutine, result)
            return result.tell(self._failed(call, context, f"no result after {limit_s:g} s; the call was given up"))
        if not running.cancelled():
            running.result()  # raises what on_result raised
        # the tool may have cancelled its task, and that may have come before or after its result
        return result.text if result.text is not None else result.tell(self._cancelled(call, context))

    async def _told(self, tool: Tool, call: ToolCall, context: ToolContext, result: _Result) -> None:
        text = clip(await self._outcome(tool, call, context), tool.options.output_limit_bytes)
        if not result.given_up:
            result.tell(text)

    async def _give_up(
        self,
        call: ToolCall,
        context: ToolContext,
        running: asyncio.Task[None],
        coroutine: Coroutine[Any, Any, None],
        result: _Result,
    ) -> None:
        """Cancel a call; one that goes on all the same is left behind, for the turn has to go on."""
        result.given_up = True
        context.stop()
        running.cancel()
        await asyncio.wait({running}, timeout=CANCEL_GRACE_S)
        if not running.done():
            self.leave_behind(call, context.session, running, coroutine)

    async def _outcome(self, tool: Tool, call: ToolCall, context: ToolContext) -> str:
        try:
            return result_text(await tool.run(call.arguments, context))
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return self._cancelled(call, context)
        except ToolError as error:
            return self._failed(call, context, error_words(error))
        except GeneratorExit:  # the task is taken down
            raise
        except BaseException as error:  # noqa: BLE001
            # the boundary: it is for the model to read. A panic of a library in Rust is no Exception either, and what
            # would end the worker a task passes on to its loop
            return self._failed(call, context, error_text(error))

    def _cancelled(self, call: ToolCall, context: ToolContext) -> str:
        return self._failed(call, context, "the call was cancelled by the tool itself")

    def _failed(self, call: ToolCall, context: ToolContext, problem: str) -> str:
        self._emit(
            Event.TOOL_FAILED, tool=call.name, session=context.session, message=context.message_id, error=problem[:500]
        )
        return f"Error: {problem}"

    def _offers(self, name: str) -> bool:
        return self._choice.offers(name, self._lenders.get(name, ""))

    def _put(self, tool: Tool) -> None:
        if tool.spec.name in self._own:
            raise SettingsError(SETTING, f"two tools are named {tool.spec.name!r}")
        if not NAME.fullmatch(tool.spec.name):
            raise SettingsError(SETTING, f"{tool.spec.name!r}: a tool's name is 1 to 64 of A-Z a-z 0-9 _ -")
        self._own[tool.spec.name] = self._tools[tool.spec.name] = tool

    def _load(self, name: str) -> None:
        tools = module_tools(import_module(name), self._threads)
        if not tools:
            raise SettingsError(SETTING, f"{name} has no function with @tool")
        for tool in tools:
            self._put(tool)


def _looked_at(task: asyncio.Future[None]) -> None:
    """Take the error of a call that nobody waits for any more, which asyncio would complain about."""
    if not task.cancelled():
        task.exception()


def _stack(waits: Any) -> str:
    """Return where a coroutine is, from what it awaits to what that awaits; Task.get_stack tells the first alone."""
    frames: list[tuple[FrameType, int]] = []
    while (frame := getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)) and len(frames) < FRAMES_TOLD:
        frames.append((frame, frame.f_lineno))
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return "".join(traceback.StackSummary.extract(frames).format())
