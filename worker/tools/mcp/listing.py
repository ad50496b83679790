"""What a server's tools are in the toolbox: which of them, under which names, with which schemas."""

from __future__ import annotations

import functools
import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

import mcp_types as types
import msgspec

from shared.errors import ToolError
from shared.events import Emit, Event
from worker.mcp_server import McpServer
from worker.tools.context import ToolContext
from worker.tools.declaration import Tool, ToolOptions
from worker.tools.mcp.wire import OURS
from worker.tools.portable_schema import NAME_LIMIT_CHARS, PortableSchema, portable_schema, told_apart
from worker.tools.spec import ToolSpec

#: characters of a description; some servers put a manual there
DESCRIPTION_LIMIT_CHARS = 4000
TOOL_LIMIT = 512


class Offer(msgspec.Struct, frozen=True):
    """One tool of a server, and how a model is told of it."""

    #: its name at the server
    name: str
    #: its name to a model
    shown_as: str
    #: its arguments, as every provider takes them
    arguments: PortableSchema
    description: str
    #: the schema of its structured results as the server wrote it, None for none
    output: Any
    #: whether a call that may have happened may be made again: only where the server says that it is safe
    may_repeat: bool


class CallTool(Protocol):
    """Calls a tool of a server."""

    def __call__(self, offer: Offer, arguments: dict[str, Any], context: ToolContext) -> Coroutine[Any, Any, str]:
        """Return the result as a model reads it. Raises ToolError."""


class Shelf(Protocol):
    """Takes the tools that servers lend, as a toolbox does."""

    def lend(self, owner: str, tools: Iterable[Tool]) -> list[str]:
        """Show the tools of an owner in the place of those before; return the names that are taken."""


class ServerTools:
    """The tools that one server lends to a toolbox, the shelf."""

    def __init__(self, server: McpServer, shelf: Shelf, emit: Emit, call: CallTool) -> None:
        self._server = server
        self._shelf = shelf
        self._emit = emit
        self._call = call
        self._left_out: Mapping[str, str] = {}
        shelf.lend(server.name, ())  # the order of the file is the order of the tools

    def show(self, tools: Iterable[types.Tool], nameless: Mapping[str, str]) -> int:
        """Bring the shelf up to date, emit once which tools are left out, and return how many there are."""
        offers, left_out = offered(self._server, tools)
        left_out = {**nameless, **left_out}
        taken = self._shelf.lend(self._server.name, [self._tool(offer) for offer in offers[:TOOL_LIMIT]])
        left_out |= dict.fromkeys(taken, "another tool has its name")
        if len(offers) > TOOL_LIMIT:
            left_out[f"{len(offers) - TOOL_LIMIT} more"] = f"a server may have {TOOL_LIMIT}"
        for name, reason in left_out.items():
            if self._left_out.get(name) != reason:
                self._emit(Event.MCP_TOOL_LEFT_OUT, server=self._server.name, tool=name, reason=reason)
        self._left_out = left_out
        return len(offers) - len(taken)

    def _tool(self, offer: Offer) -> Tool:
        options = ToolOptions(
            offer.shown_as,
            retry_safe=offer.may_repeat,
            timeout_s=self._server.timeout_s,
            approve=self._server.needs_approval(offer.name),
            approve_within_s=self._server.approve_within_s,
        )
        spec = ToolSpec(offer.shown_as, offer.description, offer.arguments.schema)
        return Tool(spec, options, functools.partial(self._run, offer))

    async def _run(self, offer: Offer, arguments: str, context: ToolContext) -> str:
        try:
            given = msgspec.json.decode(arguments.strip() or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ToolError(f"the arguments are not a JSON object: {error}") from None
        return await self._call(offer, offer.arguments.restore(given), context)


def offered(server: McpServer, tools: Iterable[types.Tool]) -> tuple[list[Offer], dict[str, str]]:
    """Return the tools of a server that a model can be offered, and why the others cannot be."""
    found: dict[str, types.Tool] = {}
    left_out: dict[str, str] = {}
    for tool in tools:
        if tool.name in found:
            left_out[tool.name] = "the server lists two of this name"
        elif server.offers(tool.name):
            found[tool.name] = tool
    names = shown_names(server.name, list(found))
    offers = []
    for tool in found.values():
        ours = (tool.meta or {}).get(OURS)
        given = ours if isinstance(ours, dict) else {"input": tool.input_schema, "output": tool.output_schema}
        try:
            arguments = portable_schema(given["input"])
        except ValueError as error:
            left_out[tool.name] = str(error)
            continue
        text = (tool.description or tool.title or "")[:DESCRIPTION_LIMIT_CHARS]
        offers.append(Offer(tool.name, names[tool.name], arguments, text, given["output"], _may_repeat(tool)))
    return offers, left_out


def shown_names(server: str, tools: Sequence[str]) -> dict[str, str]:
    """Return ``server__tool`` for each, distinct, in the characters and length that every provider takes.

    Names that would be equal after that have a part of their own hash at the end, so each is the same in every list.
    """
    plain = {name: f"{server}__{re.sub('[^A-Za-z0-9_-]', '_', name)}" for name in tools}
    shown = {name: text[:NAME_LIMIT_CHARS] for name, text in plain.items()}
    holders: dict[str, list[str]] = {}
    for name, text in shown.items():
        holders.setdefault(text, []).append(name)
    for text, names in holders.items():
        for name in names if len(names) > 1 else ():
            if text != f"{server}__{name}":  # who has the name as it is keeps it
                shown[name] = told_apart(text, name)
    return shown


def _may_repeat(tool: types.Tool) -> bool:
    notes = tool.annotations
    return notes is not None and bool(notes.read_only_hint or notes.idempotent_hint)
