"""The tools of the modules that GATEHOUSE_TOOLS names: functions with ``@tool``, and LangChain's tool objects."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from shared.errors import SettingsError
from worker.tools import langchain
from worker.tools.context import ToolContext
from worker.tools.declaration import Run, Tool, ToolOptions, declared_options
from worker.tools.results import error_text
from worker.tools.schema import Parameters, description
from worker.tools.spec import ToolSpec
from worker.tools.threads import ToolThreads

SETTING = "GATEHOUSE_TOOLS"
#: what a folder of the user's may be called, and cannot be imported as
OWN_PACKAGES = frozenset({"gateway", "worker", "shared"})


def import_module(name: str) -> ModuleType:
    """Import a module that the setting names. Raises SettingsError."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):  # it is there, and imports what is not
            raise SettingsError(SETTING, f"{name}: {error_text(error)}") from error
        top = name.partition(".")[0]
        if top in OWN_PACKAGES:
            problem = f"a package called {top} is Gatehouse's own; give yours another name"
        else:
            problem = f"there is no module {error.name!r} in {Path.cwd()} or among the installed ones"
        raise SettingsError(SETTING, f"{name}: {problem}") from error
    except (Exception, SystemExit) as error:
        # the boundary: importing runs a user's code, and the start is refused in one line that names it
        raise SettingsError(SETTING, f"{name}: {error_text(error)}") from error


def module_tools(module: ModuleType, threads: ToolThreads) -> list[Tool]:
    """Return the tools that a module holds; sync ones run in these threads.

    Raises SettingsError for something that is meant as a tool and cannot be one; the list may be empty.
    """
    found = {id(value): value for value in vars(module).values()}
    return [tool for value in found.values() for tool in _tools(module, value, threads)]


def _tools(module: ModuleType, value: Any, threads: ToolThreads) -> Iterator[Tool]:
    if declared_options(value):
        yield _function_tool(value, threads)
    elif langchain.is_tool(value):
        try:
            yield langchain.tool(value, threads)
        except (TypeError, ValueError) as error:
            raise SettingsError(SETTING, f"{module.__name__}.{value.name} cannot be a tool: {error}") from error
    elif langchain.is_foreign_tool(value):
        raise SettingsError(
            SETTING,
            f"{module.__name__} holds a {type(value).__name__} named {value.name!r}, which cannot be called here: "
            "call it in a function with @tool",
        )


def _function_tool(function: Callable[..., Any], threads: ToolThreads) -> Tool:
    options = declared_options(function) or ToolOptions(function.__name__)
    where = f"{function.__module__}.{function.__qualname__}"
    try:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("it yields, and a tool returns its result")
        parameters = Parameters(function)
    except (TypeError, NameError, ValueError) as error:
        raise SettingsError(SETTING, f"{where} cannot be a tool: {error}") from error
    spec = ToolSpec(options.name, description(function), parameters.schema)
    return Tool(spec, options, _runner(function, parameters, options.name, threads))


def _runner(function: Callable[..., Any], parameters: Parameters, name: str, threads: ToolThreads) -> Run:
    async def run_async(arguments: str, context: ToolContext) -> object:
        return await function(**parameters.read(arguments, context))

    async def run_sync(arguments: str, context: ToolContext) -> object:
        call = functools.partial(function, **parameters.read(arguments, context))
        result = await threads.run(call, tool=name, session=context.session)
        # an async function behind a plain decorator
        return await result if inspect.isawaitable(result) else result

    return run_async if inspect.iscoroutinefunction(function) else run_sync
