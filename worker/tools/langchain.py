"""Tools of LangChain, known by their shape: ``name``, ``description``, ``args_schema``, ``invoke`` and ``ainvoke``.

The package itself is not imported. See langchain_core.tools.BaseTool.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import msgspec
import pydantic

from shared.errors import ToolError
from worker.tools.context import ToolContext
from worker.tools.declaration import Tool, ToolOptions
from worker.tools.schema import problems
from worker.tools.spec import ToolSpec
from worker.tools.threads import ToolThreads

#: what tool objects of other libraries have beside a name and a description
_FOREIGN = ("args_schema", "on_invoke_tool", "params_json_schema", "function_schema", "input_schema", "inputs")


def is_tool(value: object) -> bool:
    """Tell whether an object is a tool that can be invoked here."""
    return _is_named(value) and hasattr(value, "args_schema") and callable(getattr(value, "invoke", None))


def is_foreign_tool(value: object) -> bool:
    """Tell whether an object is meant as a tool by some other library."""
    return _is_named(value) and any(hasattr(value, name) for name in _FOREIGN)


def tool(found: Any, threads: ToolThreads) -> Tool:
    """Return the tool that invokes the object. Raises TypeError where its arguments cannot be described."""
    name, schema = found.name, _schema(found)

    async def run(arguments: str, context: ToolContext) -> object:
        given = _arguments(arguments)
        try:
            if _is_async(found):
                return await found.ainvoke(given)
            call = functools.partial(found.invoke, given)
            return await threads.run(call, tool=name, session=context.session)
        except pydantic.ValidationError as error:
            raise ToolError(problems(error)) from None

    return Tool(ToolSpec(name, found.description, schema), ToolOptions(name), run)


def _is_named(value: object) -> bool:
    if isinstance(value, type):
        return False
    try:
        return isinstance(getattr(value, "name", None), str) and isinstance(getattr(value, "description", None), str)
    except Exception:  # noqa: BLE001 - any object of a user's module is looked at, and some raise at a touch
        return False


def _schema(found: Any) -> dict[str, Any]:
    """Return the arguments that a model gives; LangChain leaves those out that it fills in itself."""
    shown = getattr(found, "tool_call_schema", None) or found.args_schema
    if shown is None:
        return {"type": "object", "properties": {"tool_input": {"type": "string"}}, "required": ["tool_input"]}
    schema = shown if isinstance(shown, dict) else shown.model_json_schema()
    own = {name: part for name, part in schema.items() if name not in {"title", "description"}}
    return {"type": "object", "properties": {}, "required": []} | own


def _is_async(found: Any) -> bool:
    """Tell whether it has a coroutine of its own; without one its ``ainvoke`` would use the default executor."""
    if getattr(found, "coroutine", None) is not None:
        return True
    own = getattr(type(found), "_arun", None)
    base = next((kind for kind in type(found).__mro__ if kind.__name__ == "BaseTool"), None)
    if hasattr(found, "coroutine"):  # a wrapper around functions, of which this one has no async one
        return False
    return inspect.iscoroutinefunction(own) and base is not None and own is not getattr(base, "_arun", None)


def _arguments(arguments: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(arguments.strip() or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ToolError(f"the arguments are not a JSON object: {error}") from None
