"""Calls that a model wrote into its text, because nothing between it and us reads its way to write them.

Each family of models has a form of its own (Hermes, Qwen, Qwen3-Coder, GLM, Mistral, Llama, Kimi, DeepSeek, MiniMax,
gpt-oss); a server without the parser for it, or with the wrong one, passes it on as text. Such text counts as calls
where it begins a line outside of a code block, is the end of the answer, is of tools that were offered, and has an
object for each one's arguments. Anything else is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec.json import encode

from shared.loose_json import decode_loose
from worker.agent.models.tool_calls import arguments_text, plain_arguments, plain_name, value_at
from worker.tools.spec import ToolSpec

#: what is said of a server that passes them on
CALLS_IN_TEXT = "tool calls came as text: the server does not read this model's way to write them; they are read here"

#: what such text begins with
OPENINGS = (
    "<tool_call>", "<tool_calls>", "<function=", "<function_calls>", "<invoke name=", "<minimax:tool_call>",
    "[TOOL_CALLS]", "<|python_tag|>", "<|tool_call|>", "<|tool_calls_section_begin|>", "<|tool_call_begin|>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜DSML｜function_calls>",
    "<|channel|>commentary to=", "<|start|>assistant to=", "<|start|>assistant<|channel|>commentary to=",
)  # fmt: skip
#: what may stand around calls and says nothing
_AROUND = re.compile(
    r"\s+|</?(?:tool_calls?|function_calls|minimax:tool_call)>|<\|(?:tool_calls?|python_tag|eom_id|eot_id|im_end|call|end"
    r"|channel|start|tool_calls_section_(?:begin|end))\|>|<｜(?:tool▁calls▁(?:begin|end)|end▁of▁sentence)｜>"
    r"|</?｜DSML｜function_calls>|\[/?TOOL_CALLS\]|[;,]|</s>",
)
_NAME = r"(?P<name>[\w.:-]+)"


class _Form(NamedTuple):
    """One form of a call: what it looks like, and what its parameters stand between, where it has no object."""

    pattern: re.Pattern[str]
    parameter: re.Pattern[str] | None = None
    ends: str = ""


def _form(pattern: str, parameter: str = "", ends: str = "") -> _Form:
    return _Form(re.compile(pattern, re.DOTALL), re.compile(parameter) if parameter else None, ends)


_FORMS = (
    # Qwen3-Coder, then Llama
    _form(
        rf"<function={_NAME}>(?P<inside>\s*(?:<parameter=.*?)?)</function>", r"<parameter=([\w.-]+)>", "</parameter>"
    ),
    _form(rf"<function={_NAME}>(?P<inside>.*?)</function>"),
    # MiniMax, DeepSeek 3.2, and Claude's old form
    _form(
        rf'<(?P<mark>(?:｜DSML｜)?)invoke name="?{_NAME}"?>(?P<inside>.*?)</(?P=mark)invoke>',
        r'<(?:｜DSML｜)?parameter name="?([\w.-]+)"?[^>]*>',
        "parameter>",
    ),
    # GLM
    _form(
        rf"<tool_call>\s*{_NAME}\s*(?P<inside>(?:<arg_key>.*?)?)</tool_call>",
        r"<arg_key>([^<]*)</arg_key>\s*<arg_value>",
        "</arg_value>",
    ),
    # Kimi, then DeepSeek
    _form(rf"<\|tool_call_begin\|>\s*{_NAME}\s*<\|tool_call_argument_begin\|>(?P<inside>.*?)<\|tool_call_end\|>"),
    _form(
        rf"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?{_NAME}(?:<｜tool▁sep｜>)?(?P<inside>.*?)<｜tool▁call▁end｜>"
    ),
    # gpt-oss
    _form(
        rf"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? ?to={_NAME}(?:<\|channel\|>\w+)?\s*"
        r"(?:<\|constrain\|>\s*)?(?:json)?<\|message\|>(?P<inside>.*?)(?=<\|call\|>|<\|end\|>|$)"
    ),
    # Mistral
    _form(
        rf"\[TOOL_CALLS\]\s*{_NAME}(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?(?P<inside>\s*\{{.*?\}})(?=\s*(?:\[TOOL_CALLS\]|$))"
    ),
)


class WrittenCalls:
    """Reads calls of these tools out of text."""

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def read(self, text: str) -> list[tuple[str, str]]:
        """Return name and arguments of each call; none where the text is not made of calls alone."""
        calls: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            found = self._form_at(text, at) or self._json_at(text, at)
            if found is not None:
                at, read = found
                calls += read
            elif around := _AROUND.match(text, at):
                at = around.end()
            else:
                return []
        return calls

    def _form_at(self, text: str, at: int) -> tuple[int, list[tuple[str, str]]] | None:
        for form in _FORMS:
            if match := form.pattern.match(text, at):
                inside = match["inside"]
                given = _parameters(inside, form.parameter, form.ends) if form.parameter else _without_fence(inside)
                if call := self._call(match["name"], given):
                    return match.end(), [call]
        return None

    def _json_at(self, text: str, at: int) -> tuple[int, list[tuple[str, str]]] | None:
        """Read the calls of an object, or a list of them, that has the name in it (Hermes, Mistral, Llama)."""
        found = value_at(text, at) if text[at] in "{[" else None
        if found is None:
            return None
        value, end = found
        calls = [self._named(one) for one in (value if isinstance(value, list) else [value])]
        read = [call for call in calls if call is not None]
        return (end, read) if read and len(read) == len(calls) else None

    def _named(self, value: Any) -> tuple[str, str] | None:
        inner = value.get("function") if isinstance(value, dict) else None
        value = inner if isinstance(inner, dict) else value
        if not isinstance(value, dict):
            return None
        arguments: Any = next((value[name] for name in ("arguments", "parameters", "args") if name in value), {})
        return self._call(str(value.get("name")), arguments_text(arguments))

    def _call(self, name: str, given: object) -> tuple[str, str] | None:
        """Return a call of a tool that was offered, None for anything else."""
        name = name if name in self._tools else plain_name(name)
        tool = self._tools.get(name)
        if tool is None:
            return None
        if isinstance(given, dict):
            known: object = tool.parameters.get("properties")
            schemas = known if isinstance(known, dict) else {}
            return name, encode({key: _typed(value, schemas.get(key)) for key, value in given.items()}).decode()
        arguments = plain_arguments(str(given))
        try:
            is_object = isinstance(decode_loose(arguments.encode()), dict)
        except (ValueError, UnicodeEncodeError):
            return None
        return (name, arguments) if is_object else None


def _without_fence(text: str) -> str:
    """Return an object that may stand in a code block, or not at all."""
    return text.strip().removeprefix("```json").removesuffix("```").strip() or "{}"


def _parameters(text: str, begins: re.Pattern[str], ends: str) -> dict[str, str]:
    """Return the values that stand between a mark with their name and an end mark."""
    found: dict[str, str] = {}
    at = 0
    while begin := begins.search(text, at):
        end = text.find(ends, begin.end())
        if end < 0:
            break
        value = text[begin.end() : end].removesuffix("</｜DSML｜").removesuffix("</")
        found[begin[1].strip()] = value.removeprefix("\n").removesuffix("\n")
        at = end + len(ends)
    return found


def _typed(value: str, schema: Any) -> object:
    """Return a parameter that was written bare as its schema has it."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "string":
        return value
    try:
        return decode_loose(value.strip().encode())
    except (ValueError, UnicodeEncodeError):
        return value
