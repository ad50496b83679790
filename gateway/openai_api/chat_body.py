"""The body of ``POST /v1/chat/completions``, field by field, as OpenAI's clients send it.

See https://platform.openai.com/docs/api-reference/chat/create. A field that is not declared here is refused by
name: what is taken is honoured.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**53)]
ToolName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class ImageUrl(msgspec.Struct, frozen=True):
    """Where an image is."""

    url: str  #: a ``data:`` url, or an http(s) one
    detail: str | None = None


class FileData(msgspec.Struct, frozen=True):
    """A file of a message."""

    file_data: str | None = None  #: a ``data:`` url
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None  #: an http(s) url, as the Responses API has it


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    file: FileData | None = None


class Function(msgspec.Struct, frozen=True):
    """The function of a tool call."""

    name: str
    arguments: str | dict[str, Any] | None = None  #: JSON text; an object and nothing are read, too


class CustomCall(msgspec.Struct, frozen=True):
    """What a call of a custom tool says."""

    name: str
    input: str  #: any text


class CallEntry(msgspec.Struct, frozen=True):
    """A tool call inside an assistant message of the past, of a function or of a custom tool."""

    id: str
    function: Function | None = None
    type: str | None = None
    custom: CustomCall | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of the request."""

    role: str  #: system, developer, user, assistant, tool or function
    content: str | list[ContentPart] | None = None
    tool_calls: list[CallEntry] | None = None  #: of an assistant's message
    function_call: Function | None = None  #: of one whose client knows no tools yet
    tool_call_id: str | None = None  #: of a tool's message: the call that it answers
    name: str | None = None  #: of a function's message: the function that it answers for


class StreamOptions(msgspec.Struct, frozen=True):
    """What a streamed answer carries beside its text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchema(msgspec.Struct, frozen=True):
    """The schema that an answer has to follow."""

    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """The form the client wants the answer in: text, json_object or json_schema."""

    type: str | None = None
    json_schema: JsonSchema | None = None


class FunctionSpec(msgspec.Struct, frozen=True):
    """A function that the client runs."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None  #: a JSON schema object
    strict: bool | None = None


class CustomSpec(msgspec.Struct, frozen=True):
    """A tool that the client runs on a text of any form."""

    name: ToolName
    description: str | None = None
    format: dict[str, Any] | None = None  #: text, or a grammar, which the model is told


class ToolEntry(msgspec.Struct, frozen=True):
    """A tool of the client: a function or a custom tool."""

    type: str | None = None
    function: FunctionSpec | None = None
    custom: CustomSpec | None = None


class ChatBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call."""

    model: str  #: ``gatehouse``, or one of ``GET /v1/models``
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ToolEntry] | None = None  #: the client's own, offered beside the server's
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: str | list[str] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Any] | None = None  #: numbers by the ids of tokens
    reasoning_effort: str | None = None
    verbosity: str | None = None
    top_k: int | None = None  #: of compatible servers, as the next two are
    min_p: Share | None = None
    repetition_penalty: float | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None
    store: bool | None = None
    n: Literal[1] | None = None
    logprobs: bool | None = None  #: false
    top_logprobs: Literal[0] | None = None
    modalities: list[Literal["text"]] | None = None
    audio: None = None  #: not served, as those that follow
    prediction: None = None
    moderation: None = None
    web_search_options: None = None
    functions: list[FunctionSpec] | None = None  #: tools, as clients offered them before
    function_call: str | dict[str, Any] | None = None  #: the choice among them


#: what steers a model, and goes to it under the same name
STEERING = (
    "stop temperature top_p seed presence_penalty frequency_penalty logit_bias reasoning_effort verbosity top_k min_p "
    "repetition_penalty parallel_tool_calls"
).split()
#: what of that each provider takes; a provider that is not named takes all of it
TAKEN = {"anthropic": frozenset({"stop", "reasoning_effort", "parallel_tool_calls"})}
#: values that ask for nothing
NEUTRAL: dict[str, Any] = {
    "temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "stop": [],
    "repetition_penalty": 1, "min_p": 0, "verbosity": "medium", "parallel_tool_calls": True,
}  # fmt: skip
