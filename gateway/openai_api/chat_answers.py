"""What chat completions answer: one body, or a stream of chunks, in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.openai_api.calls import NO_RETRY, Call
from gateway.openai_api.streamed_text import StreamedText
from gateway.openai_api.tool_forms import input_of
from gateway.responses import error_body, json_response
from gateway.turn_broadcast import ApprovalAsked, GatewayStopping, TextAdded, TurnStarted
from shared.call_options import ClientCall
from shared.messages import Dead, DeadKind, Ended, TurnStatus, Usage

KEEP_ALIVE_S = 15.0
#: what the error of a turn begins with whose model refused to say anything, and whose words were too many
WITHHELD = ("Withheld:", "ModelRejected:")
TOO_LONG = "ContextTooLong:"


async def end_of(call: Call) -> Ended | Dead | GatewayStopping:
    """Wait for the end of a call, or for a question to its sender, which is the answer then."""
    while True:
        match await call.follower.next(KEEP_ALIVE_S):
            case ApprovalAsked(question):
                return Ended(TurnStatus.REPLIED, question.text, ())
            case Ended() | Dead() | GatewayStopping() as end:
                return end


async def whole(call: Call) -> Response:
    """Wait for the end of a call and answer it at once."""
    match await end_of(call):
        case Ended() as ended if is_answer(ended):
            reason = finish_reason(ended, functions=call.request.functions)
            choice = {"index": 0, "message": message_of(call, ended), "logprobs": None, "finish_reason": reason}
            body = envelope(call, "chat.completion") | {"choices": [choice], "usage": usage_entry(ended.usage)}
            return json_response(body, headers=call.headers)
        case failed:
            return failed_response(call, failed)


def failed_response(call: Call, failed: Ended | Dead | GatewayStopping) -> Response:
    """Return the answer to a call that came to nothing; a client that repeats a 5xx by itself begins a new turn."""
    status, error = failure(call, failed)
    retry = {"x-should-retry": "true", "Retry-After": "2"} if isinstance(failed, GatewayStopping) else NO_RETRY
    return json_response(error, status, call.headers | retry)


async def stream(call: Call) -> AsyncGenerator[bytes]:
    """Follow a call and yield its server-sent events."""
    yield chunk(call, {"role": "assistant", "content": ""})
    shown = StreamedText()
    while True:
        match await call.follower.next(KEEP_ALIVE_S):
            case None:
                yield b": keep-alive\n\n"
            case TurnStarted():
                shown.begin_again()
            case TextAdded(step, text) if not call.again:  # who asks again has not read the beginning
                if new := shown.add(step, text):
                    yield chunk(call, {"content": new})
            case ApprovalAsked(question):
                yield chunk(call, {"content": shown.put(question.text)})
            case Ended() as ended if is_answer(ended):
                if rest := shown.rest(ended.text):
                    yield chunk(call, {"content": rest})
                for last in closing_chunks(call, ended):
                    yield last
                return
            case Ended() | Dead() | GatewayStopping() as failed:
                yield event(failure(call, failed)[1])
                return


def closing_chunks(call: Call, ended: Ended) -> list[bytes]:
    """Return what follows the text: the calls handed over, why it ended, and what it used."""
    functions = call.request.functions
    if functions and ended.calls:
        chunks = [chunk(call, {"function_call": function_entry(ended.calls[0])})]
    else:
        chunks = [chunk(call, {"tool_calls": [call_entry(call, *one)]}) for one in enumerate(ended.calls)]
    chunks.append(chunk(call, {}, finish=finish_reason(ended, functions=functions)))
    if call.request.include_usage:
        body = envelope(call, "chat.completion.chunk") | {"choices": [], "usage": usage_entry(ended.usage)}
        chunks.append(event(body))
    return [*chunks, b"data: [DONE]\n\n"]


def is_answer(ended: Ended) -> bool:
    """Tell whether a turn's end is an answer; a model's refusal is one, which says why it ended."""
    return ended.status in {TurnStatus.REPLIED, TurnStatus.INTERRUPTED} or is_withheld(ended)


def is_withheld(ended: Ended) -> bool:
    """Tell whether the model, or its provider, refused to answer."""
    return ended.status is TurnStatus.FAILED and ended.error.startswith(WITHHELD) and "refused to answer" in ended.error


def finish_reason(ended: Ended, *, functions: bool = False) -> str:
    """Return why an answer ended, in the words of the protocol; those of ``functions``, where the client has them."""
    if functions and ended.finish == "tool_calls":
        return "function_call"
    return "content_filter" if is_withheld(ended) else ended.finish or "stop"


def message_of(call: Call, ended: Ended) -> dict[str, Any]:
    """Return the assistant's message."""
    message: dict[str, Any] = {"role": "assistant", "content": ended.text, "refusal": None}
    if is_withheld(ended):
        message |= {"content": None, "refusal": ended.text}
    if ended.calls and call.request.functions:
        message |= {"content": ended.text or None, "function_call": function_entry(ended.calls[0])}
    elif ended.calls:
        calls = [call_entry(call, None, one) for one in ended.calls]
        message |= {"content": ended.text or None, "tool_calls": calls}
    return message


def call_entry(call: Call, index: int | None, asked: ClientCall) -> dict[str, Any]:
    """Return a call of a client's tool in the form that the client knows, with its place where it is streamed."""
    entry = {"id": asked.id} if index is None else {"index": index, "id": asked.id}
    form = call.request.forms.get(asked.name)
    if form is not None and form.custom:
        return entry | {"type": "custom", "custom": {"name": form.name, "input": input_of(asked.arguments)}}
    return entry | {"type": "function", "function": function_entry(asked)}


def function_entry(asked: ClientCall) -> dict[str, Any]:
    """Return the function that is called."""
    return {"name": asked.name, "arguments": asked.arguments}


def failure(call: Call, failed: Ended | Dead | GatewayStopping) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the body of a call that got no answer."""
    match failed:
        case Ended(status=TurnStatus.TIMED_OUT):
            return 504, error_body(504, failed.text or "the turn timed out", kind="timeout", code="timed_out")
        case Ended(status=TurnStatus.OVER_BUDGET):
            return 429, error_body(429, failed.text, kind="insufficient_quota", code="over_budget")
        case Ended() if failed.error.startswith(TOO_LONG):
            return 400, error_body(400, failed.text, param="messages", code="context_length_exceeded")
        case Ended():
            return 502, error_body(502, failed.text or "the turn failed", kind="turn_failed", code="failed")
        case Dead(kind=DeadKind.MODEL):
            return 503, error_body(503, failed.text or "no model answered", kind="no_model", code="no_model")
        case Dead():
            return 502, error_body(502, failed.text or "the turn failed", kind="turn_failed", code="dead_letter")
        case GatewayStopping():
            kept = "" if call.stateless else f"; message {call.id} is kept and will be answered in its session"
            return 503, error_body(503, f"the gateway is stopping{kept}", code="stopping")


def envelope(call: Call, kind: str) -> dict[str, Any]:
    """Return what every body of an answer begins with."""
    return {
        "id": f"chatcmpl-{call.id}",
        "object": kind,
        "created": call.created,
        "model": call.request.model,
        "system_fingerprint": None,
    }


def chunk(call: Call, delta: dict[str, Any], finish: str | None = None) -> bytes:
    """Return one chunk as a server-sent event."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    body = envelope(call, "chat.completion.chunk") | {"choices": [choice]}
    return event(body | {"usage": None} if call.request.include_usage else body)


def event(body: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def usage_entry(usage: Usage) -> dict[str, Any]:
    """Return what a call used."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
