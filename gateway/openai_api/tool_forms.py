"""The forms in which clients offer their tools and take calls of them; to a model each is a function.

function     is one
custom       takes a text of any form: a function with the one argument ``input``
namespace    a group of tools, of the Responses API: each is the function ``GROUP__NAME``
functions    what chat completions had before tools: one call at a time, which has no id
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.openai_api.chat_body import (
    CallEntry,
    ChatBody,
    ChatMessage,
    CustomSpec,
    FunctionSpec,
    ToolEntry,
)
from gateway.openai_api.json_body import invalid

#: the parameters of what takes a text of any form
INPUT: dict[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
#: stands between a namespace and a name
JOINED_BY = "__"
NAME_LIMIT = 64


class ToolForm(msgspec.Struct, frozen=True):
    """How a client knows a tool that is no plain function."""

    name: str
    namespace: str = ""
    custom: bool = False


def joined(namespace: str | None, name: str) -> str:
    """Return the name that a model knows a tool by."""
    return f"{namespace}{JOINED_BY}{name}" if namespace else name


def custom_function(spec: CustomSpec) -> FunctionSpec:
    """Return a custom tool as a function; the grammar of its text is told to the model, and followed as it can."""
    description = spec.description or ""
    match spec.format:
        case {"type": "grammar", "grammar": {"syntax": str(syntax), "definition": str(definition)}}:
            pass
        case {"type": "grammar", "syntax": str(syntax), "definition": str(definition)}:
            pass
        case _:
            return FunctionSpec(spec.name, description, INPUT)
    grammar = f"The input follows this grammar ({syntax}):\n{definition}"
    return FunctionSpec(spec.name, f"{description}\n\n{grammar}".strip(), INPUT)


def input_of(arguments: str) -> str:
    """Return the text that a model's call of a custom tool says; what it wrote where that is something else."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, str])["input"]
    except (msgspec.MsgspecError, KeyError):
        return arguments


def arguments_of(text: str) -> str:
    """Return the arguments of the function that a custom tool is, called with this text."""
    return msgspec.json.encode({"input": text}).decode()


def knows_functions(chat: ChatBody) -> bool:
    """Tell whether a client offers functions, or speaks of their calls, as it was before tools."""
    offers = chat.functions is not None or chat.function_call is not None
    return offers or any(message.role == "function" or message.function_call for message in chat.messages)


def with_tools(chat: ChatBody, open_calls: Mapping[str, str]) -> ChatBody:
    """Return a call of such a client as one with tools. Raises Refused.

    ``open_calls`` are the ids of the calls that its session waits for, by the names of the functions.
    """
    if chat.functions is not None and chat.tools is not None:
        raise invalid("tools and functions cannot both be given", "functions")
    if chat.functions is None and chat.function_call is not None:
        raise invalid("function_call is only allowed when functions are given", "function_call")
    changed: dict[str, Any] = {"messages": tool_messages(chat.messages, open_calls)}
    if chat.functions is not None:
        changed["tools"] = [ToolEntry("function", spec) for spec in chat.functions]
        changed["tool_choice"] = choice_of(chat.function_call)
        changed["parallel_tool_calls"] = False if chat.functions else None
    return msgspec.structs.replace(chat, **changed)


def choice_of(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Return the choice among functions as one among tools. Raises Refused."""
    match choice:
        case None | "auto" | "none":
            return choice
        case {"name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case _:
            raise invalid("function_call is none, auto, or names one of the functions", "function_call")


def tool_messages(messages: Sequence[ChatMessage], open_calls: Mapping[str, str]) -> list[ChatMessage]:
    """Return messages with the calls and results of functions as those of tools. Raises Refused."""
    found: list[ChatMessage] = []
    calls = dict(open_calls)
    for number, message in enumerate(messages):
        if message.function_call is not None:
            name = message.function_call.name
            calls[name] = open_calls.get(name, f"call_{number}")
            entry = CallEntry(calls[name], message.function_call, "function")
            message = msgspec.structs.replace(message, tool_calls=[entry], function_call=None)  # noqa: PLW2901
        elif message.role == "function":
            if message.name not in calls:
                raise invalid("a function's message needs the name of one that was called", f"messages.{number}.name")
            message = msgspec.structs.replace(message, role="tool", tool_call_id=calls[message.name])  # noqa: PLW2901
        found.append(message)
    return found
