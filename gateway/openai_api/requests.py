"""What a call of chat completions asks for: the words that are new, what was said before, and how to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.openai_api.chat_body import (
    NEUTRAL,
    STEERING,
    TAKEN,
    CallEntry,
    ChatBody,
    ChatMessage,
    CustomCall,
    CustomSpec,
    Function,
    FunctionSpec,
    ResponseFormat,
    ToolEntry,
)
from gateway.openai_api.content import (
    NO_FILES,
    FileBatch,
    is_silent,
    links_of,
    plain_text,
    read_content,
    recall_content,
)
from gateway.openai_api.json_body import invalid
from gateway.openai_api.tool_forms import ToolForm, arguments_of, custom_function
from gateway.responses import Refused
from shared.attachments import ReadUploads
from shared.call_options import AnswerFormat, CallOptions, ClientTool

#: the model name that means whatever this gateway runs
ANY_MODEL = "gatehouse"
SYSTEM = frozenset({"system", "developer"})
ROLES = SYSTEM | {"user", "assistant", "tool"}
MOST_MESSAGES = 5_000
MOST_TOOLS = 256
MOST_STOPS = 16
#: objects and lists in each other, of a schema
MOST_LEVELS = 100
#: bytes of a call's words, files aside
TEXT_LIMIT_BYTES = 4 * 1024 * 1024


class ChatRequest(msgspec.Struct, frozen=True):
    """What one call asks for."""

    model: str
    #: what the message says, and what is traced of it
    text: str
    #: the transcript before it (JSON bytes each)
    history: tuple[bytes, ...]
    stream: bool
    include_usage: bool
    options: CallOptions = CallOptions()
    #: the images of the new message, and the bytes of those that are shown at all
    uploads: ReadUploads = ReadUploads("")
    #: how the client knows those of its tools that are no plain functions, by the names that models know
    forms: dict[str, ToolForm] = {}
    #: whether it offers functions, as clients did before tools
    functions: bool = False


def read_chat(
    chat: ChatBody,
    models: tuple[str, ...],
    *,
    in_session: bool,
    all_new: bool = False,
    provider: str = "",
    files: FileBatch = NO_FILES,
) -> ChatRequest:
    """Check a call and split its messages. Raises Refused with the name of the parameter that is wrong.

    With ``all_new`` everything in it goes on with a session. ``provider`` is that of the first model, where its name
    does not tell; ``files`` are those of ``links_shown``.

    """
    parts = split_chat(chat, models, in_session=in_session, all_new=all_new)
    asked = chat.messages[parts.asked] if parts.asked >= 0 else ChatMessage("user", "")
    if parts.opening:
        said = ReadUploads(plain_text(asked))
    else:
        said = read_content(asked, files, f"messages.{parts.asked}.content")
    if not (parts.opening or said.text.strip() or said.attachments):
        raise invalid("the last user message has no text", f"messages.{parts.asked}.content")
    data = dict(said.data)
    history, opening = (encode_all(messages, files, data, shown=shown) for messages, shown in parts.earlier(in_session))
    if sum(map(len, history + opening)) + len(said.text) > TEXT_LIMIT_BYTES:
        raise Refused(413, f"the messages have more than {TEXT_LIMIT_BYTES} bytes of text", param="messages")
    return ChatRequest(
        chat.model,
        said.text,
        history,
        bool(chat.stream),
        bool(chat.stream_options and chat.stream_options.include_usage),
        options_of(chat, models, provider, opening, system_of(chat.messages) if in_session else ""),
        ReadUploads(said.text, said.attachments, data),
        forms_of(chat.tools or []),
        chat.functions is not None,
    )


def links_shown(chat: ChatBody, models: tuple[str, ...], *, in_session: bool, all_new: bool = False) -> list[str]:
    """Return the urls of the files that the model is to see, those said last first. Raises Refused as ``read_chat``."""
    parts = split_chat(chat, models, in_session=in_session, all_new=all_new)
    asked = [] if parts.opening else [chat.messages[parts.asked]]
    shown = [message for messages, shown in parts.earlier(in_session) if shown for message in messages]
    return links_of([*shown, *asked])


def split_chat(chat: ChatBody, models: tuple[str, ...], *, in_session: bool, all_new: bool) -> Parts:
    """Check the messages of a call and split them. Raises Refused."""
    refuse_unserved(chat, models)
    for number, message in enumerate(chat.messages):
        check_message(message, number)
    numbers = spoken(chat.messages)
    messages = [chat.messages[number] for number in numbers]
    parts = all_of(messages) if all_new else split(messages, in_session=in_session)
    return parts._replace(asked=numbers[parts.asked] if parts.asked >= 0 else -1)


def spoken(messages: Sequence[ChatMessage]) -> list[int]:
    """Return the numbers of the messages that count: one without a word says nothing, and providers refuse it.

    Clients keep an empty answer where its reader stopped it before the first word.
    """
    last_user = max((number for number, message in enumerate(messages) if message.role == "user"), default=-1)
    return [
        number
        for number, message in enumerate(messages)
        if number == last_user or message.role == "tool" or message.tool_calls or not is_silent(message)
    ]


def encode_all(
    messages: Sequence[ChatMessage], files: FileBatch, data: dict[str, bytes], *, shown: bool
) -> tuple[bytes, ...]:
    """Return earlier messages as transcript JSON; the bytes of the images that they show join ``data``."""
    encoded = []
    for message in messages:
        said = recall_content(message, files) if shown else ReadUploads(plain_text(message))
        data |= said.data
        encoded.append(encode(message, said))
    return tuple(encoded)


class Parts(NamedTuple):
    """The messages of a call: what was said before, what is new, and which is the last that the user said."""

    history: Sequence[ChatMessage]
    #: empty where the last user message is all that is new
    opening: Sequence[ChatMessage]
    asked: int

    def earlier(self, in_session: bool) -> tuple[tuple[Sequence[ChatMessage], bool], ...]:
        """Return the history and the opening, each with whether its images are shown: a session has kept its own."""
        return (self.history, not in_session), (self.opening, True)


def all_of(messages: Sequence[ChatMessage]) -> Parts:
    """Take all messages as new."""
    new = [number for number, message in enumerate(messages) if message.role not in SYSTEM]
    if not new:
        raise invalid("there is nothing to answer", "input")
    users = [number for number in new if messages[number].role == "user"]
    alone = len(new) == 1 and bool(users)
    return Parts([], [] if alone else [messages[number] for number in new], max(users, default=-1))


def split(messages: Sequence[ChatMessage], *, in_session: bool) -> Parts:
    """Split the messages of a call. Raises Refused where no user says anything.

    New is what stands behind the last answer; an assistant's message at the very end is the beginning of the next one.
    A session has its own history, so only the last user message counts there, or the results of the calls that its
    client was handed; what is before those begins a session that does not exist yet.
    """
    said = [number for number, message in enumerate(messages) if not (in_session and message.role in SYSTEM)]
    users = [number for number in said if messages[number].role == "user"]
    if not users:
        raise invalid("the last message has to be the user's, and there is none", "messages")
    begun = messages[said[-1]].role == "assistant"
    answers = [number for number in said[: -1 if begun else None] if messages[number].role == "assistant"]
    last_answer = max(answers, default=-1)
    new = [number for number in said if number > last_answer]
    results = [number for number in new if messages[number].role == "tool"]
    if in_session and not results:
        return Parts([], [messages[users[-1]], messages[said[-1]]] if begun else [], users[-1])
    if not in_session and messages[-1].role == "user":
        return Parts(messages[:-1], [], users[-1])
    start = results[0] if in_session else new[0]
    history = [messages[number] for number in said if number < start]
    return Parts(history, [messages[number] for number in said if number >= start], users[-1])


def options_of(
    chat: ChatBody, models: tuple[str, ...], provider: str, new: tuple[bytes, ...], system: str
) -> CallOptions:
    """Return what the call asks for beside its words."""
    form = answer_format(chat.response_format)
    choice, tools = allowed(chat.tool_choice, client_tools(chat.tools or []))
    fields = steering(chat, models, provider) | tool_choice(choice, tools)
    for number, tool in enumerate(tools):
        check_value(tool.parameters, f"tools.{number}.function.parameters")
    check_value(form.schema if form else None, "response_format.json_schema.schema")
    for name, value in fields.items():
        check_value(value, name)
    return CallOptions(
        tools=() if choice == "none" else tools,
        format=form,
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        fields=fields,
        system=system,
        opening=new,
    )


def check_value(value: Any, param: str) -> None:
    """Check a value of any JSON type. Raises Refused for one that not everything it passes through can take."""
    level, levels = [value], 0
    while level:
        levels += 1
        if levels > MOST_LEVELS:
            raise invalid(f"there are more than {MOST_LEVELS} levels in each other", param)
        if any(isinstance(one, int) and not -(2**63) <= one < 2**63 for one in level):
            raise invalid("a whole number is larger than 64 bits hold", param)
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for values in inner for one in values]


def steering(chat: ChatBody, models: tuple[str, ...], provider: str) -> dict[str, Any]:
    """Return the fields that steer a model. Raises Refused for one that the first model does not take."""
    given = {name: getattr(chat, name) for name in STEERING}
    fields = {name: value for name, value in given.items() if value is not None and value != NEUTRAL.get(name)}
    stops = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    if len(stops) > MOST_STOPS or not all(stops):
        raise invalid(f"stop is 1 to {MOST_STOPS} texts that are not empty", "stop")
    if not all(
        isinstance(bias, int | float) and not isinstance(bias, bool) for bias in (chat.logit_bias or {}).values()
    ):
        raise invalid("the biases are numbers", "logit_bias")
    if not models:
        return fields
    provider = provider or models[0].partition(":")[0]
    for name in fields:
        if provider in TAKEN and name not in TAKEN[provider]:
            raise invalid(f"{models[0]} takes no {name}: leave it out", name, "unsupported_parameter")
    return fields


def client_tools(entries: Sequence[ToolEntry]) -> tuple[ClientTool, ...]:
    """Return the client's tools."""
    if len(entries) > MOST_TOOLS:
        raise invalid(f"there are more than {MOST_TOOLS} tools", "tools")
    tools = []
    for number, entry in enumerate(entries):
        spec = function_of(entry, f"tools.{number}")
        parameters = spec.parameters or {"type": "object", "properties": {}}
        tools.append(ClientTool(spec.name, spec.description or "", parameters))
    if len({tool.name for tool in tools}) < len(tools):
        raise invalid("two tools have one name", "tools")
    return tuple(tools)


def function_of(entry: ToolEntry, param: str) -> FunctionSpec:
    """Return a tool as the function that it is to a model. Raises Refused."""
    match entry:
        case ToolEntry(type="function" | None, function=FunctionSpec() as spec):
            return spec
        case ToolEntry(type="custom", custom=CustomSpec() as spec):
            return custom_function(spec)
        case ToolEntry(type="function" | "custom" | None):
            raise invalid(f"the tool has no {entry.type or 'function'}", f"{param}.{entry.type or 'function'}")
        case _:
            raise invalid(f"tools of the types function and custom are served, not {entry.type!r}", f"{param}.type")


def forms_of(entries: Sequence[ToolEntry]) -> dict[str, ToolForm]:
    """Return how a client knows those of its tools that are no plain functions, by the names that models know."""
    custom = (entry.custom for entry in entries if entry.type == "custom")
    return {spec.name: ToolForm(spec.name, custom=True) for spec in custom if spec}


def allowed(
    choice: str | dict[str, Any] | None, tools: tuple[ClientTool, ...]
) -> tuple[str | dict[str, Any] | None, tuple[ClientTool, ...]]:
    """Return the choice among the tools that it allows, and those. Raises Refused for one that there is not."""
    match choice:
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(entries)}}:
            names = [tool_named(entry) for entry in entries]
            if unknown := [name for name in names if name not in {tool.name for tool in tools}]:
                raise invalid(f"{unknown[0]!r} is not among the tools", "tool_choice")
            return mode, tuple(tool for tool in tools if tool.name in names)
        case _:
            return choice, tools


def tool_named(entry: Any) -> str:
    """Return the name of the function that an entry of a choice means, empty where it names none."""
    match entry:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "custom", "custom": {"name": str(name)}}:
            return name
        case _:
            return ""


def tool_choice(choice: str | dict[str, Any] | None, tools: tuple[ClientTool, ...]) -> dict[str, Any]:
    """Return the choice as a field; ``auto`` is what holds without one, and with ``none`` no tool is offered."""
    match choice:
        case None | "auto" | "none":
            return {}
        case "required" if tools:
            return {"tool_choice": "required"}
        case {} if (name := tool_named(choice)) in {tool.name for tool in tools}:
            return {"tool_choice": {"type": "function", "function": {"name": name}}}
        case _:
            known = "none, auto, required, or one or some of the functions among the tools"
            raise invalid(f"tool_choice is {known}", "tool_choice")


def answer_format(form: ResponseFormat | None) -> AnswerFormat | None:
    """Return the form that the answer has to have, None for plain text."""
    match form:
        case None | ResponseFormat(type="text" | None):
            return None
        case ResponseFormat(type="json_object"):
            return AnswerFormat()
        case ResponseFormat(type="json_schema", json_schema=schema) if schema is not None:
            return AnswerFormat(schema.name or "answer", schema.schema or {}, schema.strict)
        case ResponseFormat(type="json_schema"):
            raise invalid("json_schema is missing", "response_format")
        case _:
            raise invalid("the formats are text, json_object and json_schema", "response_format")


def refuse_unserved(chat: ChatBody, models: tuple[str, ...]) -> None:
    """Refuse what cannot be done, by its name."""
    if chat.model not in {ANY_MODEL, *models}:
        known = ", ".join((ANY_MODEL, *models))
        raise Refused(
            404, f"there is no model {chat.model!r}; there is: {known}", param="model", code="model_not_found"
        )
    if not chat.messages:
        raise invalid("there are no messages", "messages")
    if len(chat.messages) > MOST_MESSAGES:
        raise invalid(f"there are more than {MOST_MESSAGES} messages", "messages")
    if chat.logprobs:
        raise invalid("log probabilities are not served", "logprobs")
    if chat.service_tier not in {None, "auto", "default"}:
        raise invalid("the service tier is auto", "service_tier")


def check_message(message: ChatMessage, number: int) -> None:
    """Raise Refused where a message's role is unknown or its content is none."""
    param = f"messages.{number}"
    if message.role not in ROLES:
        raise invalid(f"{message.role!r} is no role", f"{param}.role")
    if message.role == "tool" and not message.tool_call_id:
        raise invalid("a tool message needs the tool_call_id it answers", f"{param}.tool_call_id")
    for place, call in enumerate(message.tool_calls or ()):
        if call.function is None and call.custom is None:
            raise invalid("a tool call needs its function", f"{param}.tool_calls.{place}.function")
    if message.content is None and message.role == "user":
        raise invalid("the message has no content", f"{param}.content")
    for part in message.content if isinstance(message.content, list) else ():
        if part.type not in {"text", "refusal", "image_url", "file", "input_audio"}:
            raise invalid(f"{part.type!r} is no part of a message", f"{param}.content")


def system_of(messages: Sequence[ChatMessage]) -> str:
    """Return what the system messages of a call say, wherever they stand."""
    return "\n\n".join(plain_text(message) for message in messages if message.role in SYSTEM)


def encode(message: ChatMessage, said: ReadUploads) -> bytes:
    """Return a message that says this as transcript JSON."""
    entry: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": said.text}
    if message.role == "assistant" and message.tool_calls:
        entry |= {"content": said.text or None, "tool_calls": [encode_call(call) for call in message.tool_calls]}
    if message.role == "tool":
        entry |= {"tool_call_id": message.tool_call_id, "name": message.name or ""}
    if said.attachments:
        entry |= {"attachments": said.attachments}
    return msgspec.json.encode(entry)


def encode_call(call: CallEntry) -> dict[str, Any]:
    """Return a tool call of the past as a transcript has it."""
    match call:
        case CallEntry(custom=CustomCall(name, text)):
            arguments = arguments_of(text)
        case CallEntry(function=Function(name, given)):
            arguments = given if isinstance(given, str) else msgspec.json.encode(given or {}).decode()
    return {"id": call.id, "type": "function", "function": {"name": name, "arguments": arguments}}
