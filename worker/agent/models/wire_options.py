"""What a caller asks of a model beside its messages, as each wire has it.

The names are those of chat completions (https://platform.openai.com/docs/api-reference/chat/create), which compatible
servers take as they are; the Messages API has some of them under other names and others not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

JSON_ALONE = "Answer with one JSON value alone, without any other word and without a code fence."

#: how hard Anthropic's models think, for the words of chat completions
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max"}


def anthropic_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as fields of the Messages API; the gateway refuses what it does not take."""
    fields: dict[str, Any] = {}
    output: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    for name, value in options.items():
        match name:
            case "stop":
                fields["stop_sequences"] = [value] if isinstance(value, str) else list(value)
            case "tool_choice":
                choice = _tool_choice(value) | choice
            case "parallel_tool_calls" if value is False:
                choice = {"type": "auto"} | choice | {"disable_parallel_tool_use": True}
            case "reasoning_effort" if value in _EFFORTS:
                output["effort"] = _EFFORTS[value]
    return fields | ({"tool_choice": choice} if choice else {}) | ({"output_config": output} if output else {})


def format_instruction(options: Mapping[str, Any]) -> str:
    """Return what a model is told of its answer's form where the wire has no field for it; empty for plain text."""
    match options.get("response_format"):
        case {"json_schema": {"schema": schema}}:
            return f"{JSON_ALONE} It has to follow this JSON schema:\n{msgspec.json.encode(schema).decode()}"
        case {"type": "json_object"}:
            return JSON_ALONE
        case _:
            return ""


def cut(text: str, options: Mapping[str, Any], max_characters: int) -> tuple[str, str]:
    """Return a text as a model with these limits would have ended it, and why it ended."""
    stops = options.get("stop") or ()
    ends = [text.find(stop) for stop in ([stops] if isinstance(stops, str) else stops)]
    end = min((end for end in ends if end >= 0), default=len(text))
    return (text[:max_characters], "length") if end > max_characters else (text[:end], "stop")


def _tool_choice(choice: Any) -> dict[str, Any]:
    match choice:
        case "required":
            return {"type": "any"}
        case "none":
            return {"type": "none"}
        case {"function": {"name": str(name)}}:
            return {"type": "tool", "name": name}
        case _:
            return {"type": "auto"}
