"""The body of ``POST /v1/responses`` in its common subset, read into what chat completions ask for.

See https://platform.openai.com/docs/api-reference/responses/create. A field that is not declared here is refused by
its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from gateway.openai_api.chat_body import (
    CallEntry,
    ChatBody,
    ChatMessage,
    ContentPart,
    Count,
    CustomSpec,
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
from gateway.openai_api.tool_forms import NAME_LIMIT, ToolForm, arguments_of, custom_function, joined

#: the types of tools that clients may offer
TOOL_TYPES = "function, custom and namespace"


Includable = Literal[
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
]


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
    """One item of the input: a message, a call of a client's tool, its result, or the id of one that is kept."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None  #: of the tool that is called
    arguments: str | None = None
    input: str | None = None  #: of a custom tool's call
    output: str | list[InputPart] | None = None

    @property
    def kind(self) -> str:
        """Its type, told by its fields where it is left out."""
        return self.type or ("message" if self.role else "item_reference" if self.id else "message")


class FunctionTool(msgspec.Struct, frozen=True):
    """A tool that the client runs: a function or a custom tool."""

    type: str
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None  #: of a function, a JSON schema object
    strict: bool | None = None
    format: dict[str, Any] | None = None  #: of a custom tool: text, or a grammar, which the model is told


class OfferedTool(FunctionTool, frozen=True):
    """A tool that the client runs, or a namespace of some."""

    tools: list[FunctionTool] | None = None  #: of a namespace


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
    tools: list[OfferedTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    metadata: dict[str, str] | None = None
    client_metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None
    include: list[Includable] | None = None  #: of what no answer holds here, nothing is added
    truncation: str | None = None
    background: bool | None = None  #: true answers at once; ``GET /v1/responses/{id}`` tells how it goes
    top_logprobs: Literal[0] | None = None
    max_tool_calls: None = None  #: not served, as those that follow
    conversation: None = None
    prompt: None = None


def as_chat(body: ResponsesBody) -> ChatBody:
    """Return the call as one of chat completions. Raises Refused for what is not served."""
    if body.background and body.store is False:
        raise invalid("a response in the background has to be stored: leave store out", "background")
    if body.truncation not in {None, "disabled", "auto"}:
        raise invalid("truncation is auto or disabled", "truncation")
    text, reasoning = body.text or TextOptions(), body.reasoning or Reasoning()
    return ChatBody(
        model=body.model,
        messages=messages_of(body.input),
        stream=body.stream,
        tools=[entry for number, tool in enumerate(body.tools or []) for entry in entries_of(tool, f"tools.{number}")],
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
            case "function_call" | "custom_tool_call" as kind:
                arguments = item.arguments if kind == "function_call" else arguments_of(item.input or "")
                call = CallEntry(item.call_id or "", Function(joined(item.namespace, item.name or ""), arguments))
                last = messages.pop() if messages and messages[-1].role == "assistant" else ChatMessage("assistant")
                calls = last.tool_calls or []  # a list of this function's own: a message's item has none
                calls.append(call)
                messages.append(msgspec.structs.replace(last, tool_calls=calls))
            case "function_call_output" | "custom_tool_call_output":
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


def entries_of(tool: OfferedTool, param: str) -> list[ToolEntry]:
    """Return a tool, or those of a namespace, as chat completions have them. Raises Refused."""
    if tool.type != "namespace":
        return [entry_of(tool, param)]
    if tool.name is None:
        raise invalid("a namespace needs a name beside its type", f"{param}.name")
    return [entry_of(one, f"{param}.tools.{number}", tool.name) for number, one in enumerate(tool.tools or [])]


def entry_of(tool: FunctionTool, param: str, namespace: str = "") -> ToolEntry:
    """Return one tool as chat completions have it. Raises Refused."""
    if tool.type not in {"function", "custom"}:
        raise invalid(f"tools of the type {tool.type!r} are not served: {TOOL_TYPES} are", f"{param}.type")
    if tool.name is None:
        raise invalid(f"a {tool.type} needs a name beside its type", f"{param}.name")
    name = joined(namespace, tool.name)
    if len(name) > NAME_LIMIT:
        raise invalid(f"{name!r} is longer than {NAME_LIMIT} characters, with its namespace", f"{param}.name")
    if tool.type == "custom":
        return ToolEntry("function", custom_function(CustomSpec(name, tool.description, tool.format)))
    return ToolEntry("function", FunctionSpec(name, tool.description, tool.parameters, tool.strict))


def forms_of(tools: Sequence[OfferedTool]) -> dict[str, ToolForm]:
    """Return how a client knows those of its tools that are no plain functions, by the names that models know."""
    grouped = [(tool.name or "", one) for tool in tools for one in tool.tools or () if tool.type == "namespace"]
    known = [*grouped, *(("", tool) for tool in tools if tool.type == "custom")]
    return {
        joined(namespace, tool.name or ""): ToolForm(tool.name or "", namespace, tool.type == "custom")
        for namespace, tool in known
    }


def chosen(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Return the choice of a tool as chat completions have it."""
    match choice:
        case {"type": "function" | "custom", "namespace": str(namespace), "name": str(name)}:
            return {"type": "function", "function": {"name": joined(namespace, name)}}
        case {"type": "function" | "custom", "name": str(name)}:
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
