"""What a client of the API asks of a turn: its tools beside the worker's, its fields, the form of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.call_options import CallOptions, ClientCall
from worker.agent.models.port import ModelRequest
from worker.tools.spec import ToolCall, ToolSpec

NOTHING = CallOptions()
#: fields that mean nothing where there are no tools, and that servers refuse then
OF_TOOLS = frozenset({"tool_choice", "parallel_tool_calls"})


class CallRequest:
    """Makes the turn's model requests what the client asked for; without ``options`` it changes nothing."""

    def __init__(self, options: CallOptions | None) -> None:
        asked = options or NOTHING
        self.is_api = options is not None
        self.format = asked.format
        self._system = asked.system
        self._max_tokens = asked.max_tokens
        self._tools = tuple(ToolSpec(tool.name, tool.description, tool.parameters) for tool in asked.tools)
        self._names = frozenset(tool.name for tool in asked.tools)
        self._fields: dict[str, Any] = dict(asked.fields)
        if asked.format is not None:
            self._fields["response_format"] = asked.format.as_field()

    def tools(self, own: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Return the tools that a model may call: a client's tool stands in the place of a worker's of its name."""
        if not self._tools:
            return tuple(own)
        return (*(spec for spec in own if spec.name not in self._names), *self._tools)

    def system(self, own: str) -> str:
        """Return the system prompt with what the client adds to it."""
        return "\n\n".join(part for part in (own, self._system) if part)

    def request(self, request: ModelRequest) -> ModelRequest:
        """Return a model request with what the client asks of the model."""
        if not self.is_api:
            return request
        fields = {name: value for name, value in self._fields.items() if request.tools or name not in OF_TOOLS}
        request = msgspec.structs.replace(request, options=fields)
        return request if self._max_tokens is None else msgspec.structs.replace(request, max_tokens=self._max_tokens)

    def is_clients(self, call: ToolCall) -> bool:
        """Tell whether the client runs this call."""
        return call.name in self._names


def handed_over(calls: Sequence[ToolCall]) -> tuple[ClientCall, ...]:
    """Return calls as their client gets them."""
    return tuple(ClientCall(call.id, call.name, call.arguments) for call in calls)
