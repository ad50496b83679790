"""The body of ``POST /v1/responses`` in its common subset, read into what chat completions ask for.

See https://platform.openai.com/docs/api-reference/responses/create. A field that is not declared here is refused by
its name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.openai_api.chat_body import (
    CallEntry,
    ChatBody,
    ChatMessage,
    ContentPart,
    Count,
    FileData,
    Function,
    FunctionSpec,
    ImageUrl,
    JsonSchema,
    ResponseFormat,
    Share,
    Temperature,
    ToolEntry,
    ToolName,
)
from gateway.openai_api.json_body import invalid


class InputPart(msgspec.Struct, frozen=True):
    """One part of an item's content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class InputItem(msgspec.Struct, frozen=True):
    """One item of the input: a message, a call of the client's tool, its result, or the id of one that is kept."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None

    @property
    def kind(self) -> str:
        """Its type, told by its fields where it is left out."""
        return self.type or ("message" if self.role else "item_reference" if self.id else "message")


class FunctionTool(msgspec.Struct, frozen=True):
    """A function that the client runs."""

    type: str
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """How hard the model is to think."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextFormat(msgspec.Struct, frozen=True):
    """The form of the answer."""

    type: str | None = None
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(msgspec.Struct, frozen=True):
    """What the answer's text is to be like."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ResponsesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call."""

    model: str  #: ``gatehouse``, or one of ``GET /v1/models``
    input: str | list[InputItem]
    instructions: str | None = None  #: for this call alone
    previous_response_id: str | None = None  #: the last response of the conversation that this call goes on with
    store: bool | None = None  #: false keeps nothing; else the response can be gone on from
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None
    include: list[str] | None = None
    truncation: str | None = None
    background: bool | None = None  #: false
    top_logprobs: Literal[0] | None = None
    max_tool_calls: None = None  #: not served, as those that follow
    conversation: None = None
    prompt: None = None


def as_chat(body: ResponsesBody) -> ChatBody:
    """Return the call as one of chat completions. Raises Refused for what is not served."""
    if body.background:
        raise invalid("background is not served", "background")
    if body.truncation not in {None, "disabled", "auto"}:
        raise invalid("truncation is auto or disabled", "truncation")
    text, reasoning = body.text or TextOptions(), body.reasoning or Reasoning()
    return ChatBody(
        model=body.model,
        messages=messages_of(body.input),
        stream=body.stream,
        tools=[tool_entry(tool, number) for number, tool in enumerate(body.tools or [])],
        tool_choice=chosen(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=form_of(text.format),
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        reasoning_effort=reasoning.effort,
        verbosity=text.verbosity,
        service_tier=body.service_tier,
        top_logprobs=body.top_logprobs,
    )


def messages_of(given: str | list[InputItem]) -> list[ChatMessage]:
    """Return the input as messages; calls that follow an assistant's words are that message's."""
    if isinstance(given, str):
        return [ChatMessage("user", given)]
    messages: list[ChatMessage] = []
    for number, item in enumerate(given):
        match item.kind:
            case "message":
                messages.append(ChatMessage(item.role or "", content_of(item.content, f"input.{number}.content")))
            case "function_call":
                call = CallEntry(item.call_id or "", Function(item.name or "", item.arguments))
                last = messages.pop() if messages and messages[-1].role == "assistant" else ChatMessage("assistant")
                messages.append(msgspec.structs.replace(last, tool_calls=[*(last.tool_calls or []), call]))
            case "function_call_output":
                result = content_of(item.output, f"input.{number}.output")
                messages.append(ChatMessage("tool", result, tool_call_id=item.call_id))
            case "reasoning":
                continue
            case other:
                raise invalid(f"items of the type {other!r} are not served", f"input.{number}.type")
    return messages


def content_of(content: str | list[InputPart] | None, param: str) -> str | list[ContentPart] | None:
    """Return an item's content as a message has it."""
    if not isinstance(content, list):
        return content
    parts: list[ContentPart] = []
    for number, part in enumerate(content):
        match part.type:
            case "input_text" | "output_text" | "text":
                parts.append(ContentPart("text", part.text))
            case "refusal":
                parts.append(ContentPart("refusal", refusal=part.refusal))
            case "input_image" if part.image_url:
                parts.append(ContentPart("image_url", image_url=ImageUrl(part.image_url)))
            case "input_file" if part.file_data or part.file_url:
                file = FileData(part.file_data, part.filename, file_url=part.file_url)
                parts.append(ContentPart("file", file=file))
            case other:
                raise invalid(f"a part {other!r} has to be text, or bring its content or link it", f"{param}.{number}")
    return parts


def tool_entry(tool: FunctionTool, number: int) -> ToolEntry:
    """Return a tool as chat completions have it."""
    if tool.type != "function":
        raise invalid(f"only tools of the type function are served, not {tool.type!r}", f"tools.{number}.type")
    if tool.name is None:
        raise invalid("a function needs a name beside its type", f"tools.{number}.name")
    return ToolEntry("function", FunctionSpec(tool.name, tool.description, tool.parameters, tool.strict))


def chosen(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Return the choice of a tool as chat completions have it."""
    match choice:
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": str(mode), "tools": list(tools)}:
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [chosen(one) for one in tools]}}
        case _:
            return choice


def form_of(form: TextFormat | None) -> ResponseFormat | None:
    """Return the form of the answer as chat completions have it."""
    if form is None:
        return None
    if form.type == "json_schema" and form.schema is not None:
        return ResponseFormat("json_schema", JsonSchema(form.name, form.schema, form.strict))
    return ResponseFormat(form.type)
