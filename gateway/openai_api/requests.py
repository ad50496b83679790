"""The body of ``POST /v1/chat/completions``: read, validated, and split into what to say and what was said before."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.responses import Refused

#: the model name that means whatever this gateway runs
ANY_MODEL = "gatehouse"

TOOLS_RUN_HERE = (
    "tools run on the server: name modules with @tool functions in GATEHOUSE_TOOLS and leave {name} out of the request"
)


class TextPart(msgspec.Struct, frozen=True):
    """One part of a message's content; only text can be read."""

    type: str
    text: str = ""


class Function(msgspec.Struct, frozen=True):
    """The function of a tool call; ``arguments`` is JSON text."""

    name: str
    arguments: str


class CallEntry(msgspec.Struct, frozen=True):
    """A tool call inside an assistant message of the past."""

    id: str
    function: Function
    type: str = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of the request."""

    role: str
    content: str | list[TextPart] | None = None
    tool_calls: list[CallEntry] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """What a streamed answer carries beside its text."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """The form the client wants the answer in."""

    type: str = "text"


class ChatBody(msgspec.Struct, frozen=True):
    """The body as OpenAI clients send it; what steers sampling is read over, the gateway's own model decides."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: ResponseFormat | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """What one call asks for: the new user text, the transcript before it (JSON bytes each), and how to answer."""

    model: str
    text: str
    history: tuple[bytes, ...]
    stream: bool
    include_usage: bool


def parse_chat_request(body: bytes, models: tuple[str, ...], *, in_session: bool) -> ChatRequest:
    """Read the body of a call. Raises Refused with the name of the parameter that is wrong.

    In a session the server keeps the history: only the last user message counts. Otherwise the last message has to be
    the user's, and those before it are the history.
    """
    chat = decode(body)
    refuse_unserved(chat, models)
    texts = [message_text(message, number) for number, message in enumerate(chat.messages)]
    last = last_user_message(chat.messages, in_session=in_session)
    if not texts[last].strip():
        raise invalid("the last user message has no text", f"messages.{last}.content")
    history = () if in_session else tuple(map(encode, chat.messages[:last], texts[:last]))
    include_usage = bool(chat.stream_options and chat.stream_options.include_usage)
    return ChatRequest(chat.model, texts[last], history, bool(chat.stream), include_usage)


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refused:
    return Refused(400, message, param=param, code=code)


def decode(body: bytes) -> ChatBody:
    try:
        return msgspec.json.decode(body, type=ChatBody)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        param = path.rstrip("`").lstrip(".").replace("[", ".").replace("]", "") or None
        raise invalid(problem, param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("the body is not a JSON object in UTF-8") from None


def refuse_unserved(chat: ChatBody, models: tuple[str, ...]) -> None:
    """Refuse what would otherwise be ignored in silence though it changes the meaning of the call."""
    for name, given in (("tools", chat.tools), ("functions", chat.functions)):
        if given:
            raise invalid(TOOLS_RUN_HERE.format(name=name), name)
    if chat.n not in {None, 1}:
        raise invalid("one answer a call: n can only be 1", "n")
    if chat.response_format and chat.response_format.type != "text":
        raise invalid("only the response format text is served", "response_format")
    if chat.model not in {ANY_MODEL, *models}:
        known = ", ".join((ANY_MODEL, *models))
        raise Refused(
            404, f"there is no model {chat.model!r}; there is: {known}", param="model", code="model_not_found"
        )
    if not chat.messages:
        raise invalid("there are no messages", "messages")


def message_text(message: ChatMessage, number: int) -> str:
    """Return a message's text; raises Refused where its role is unknown or its content is not text."""
    param = f"messages.{number}"
    if message.role not in {"system", "developer", "user", "assistant", "tool"}:
        raise invalid(f"{message.role!r} is no role", f"{param}.role")
    if message.role == "tool" and not message.tool_call_id:
        raise invalid("a tool message needs the tool_call_id it answers", f"{param}.tool_call_id")
    match message.content:
        case str(text):
            return text
        case None if message.role == "assistant":
            return ""
        case None:
            raise invalid("the message has no content", f"{param}.content")
        case parts:
            for part in parts:
                if part.type != "text":
                    raise invalid(f"only text parts can be read, not {part.type!r}", f"{param}.content")
            return "".join(part.text for part in parts)


def last_user_message(messages: list[ChatMessage], *, in_session: bool) -> int:
    """Return the number of the message to answer."""
    last = len(messages) - 1
    if in_session:
        last = next((number for number in range(last, -1, -1) if messages[number].role == "user"), -1)
    if last < 0 or messages[last].role != "user":
        raise invalid("the last message has to be the user's", "messages")
    return last


def encode(message: ChatMessage, text: str) -> bytes:
    """Return a message as transcript JSON."""
    entry: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": text}
    if message.role == "assistant" and message.tool_calls:
        entry |= {"content": text or None, "tool_calls": message.tool_calls}
    if message.role == "tool":
        entry |= {"tool_call_id": message.tool_call_id, "name": message.name or ""}
    return msgspec.json.encode(entry)
