"""What the Responses API answers: the response object, and the events of a streamed one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec

from gateway.openai_api.calls import Call
from gateway.openai_api.chat_answers import KEEP_ALIVE_S, failure, finish_reason, is_answer, is_withheld
from gateway.openai_api.responses_body import FunctionTool, InputItem, OfferedTool, ResponsesBody
from gateway.openai_api.streamed_text import StreamedText
from gateway.openai_api.tool_forms import ToolForm, input_of
from gateway.turn_broadcast import ApprovalAsked, GatewayStopping, TextAdded, TurnStarted
from shared.call_options import ClientCall
from shared.messages import Dead, Ended, TurnStatus, Usage

PREFIX = "resp_"
#: what the ids of items begin with; the id of their message follows
WORDS_ITEM, CALL_ITEM = "item_", "fc_"
#: why a response is not whole, for the reasons of chat completions
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def response_of(call: Call, body: ResponsesBody, status: str, output: list[Any], **more: Any) -> dict[str, Any]:
    """Return the response object."""
    form = msgspec.to_builtins(body.text.format) if body.text and body.text.format else {"type": "text"}
    return {
        "id": PREFIX + call.id,
        "object": "response",
        "created_at": call.created,
        "status": status,
        "background": body.background is True,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": body.model,
        "output": output,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": body.store is not False,
        "temperature": body.temperature,
        "text": {"format": {name: value for name, value in form.items() if value is not None}},
        "tool_choice": body.tool_choice or "auto",
        "tools": [tool_object(tool) for tool in body.tools or []],
        "top_p": body.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    } | more


def tool_object(tool: FunctionTool) -> dict[str, Any]:
    """Return a tool as its client offered it."""
    fields = {name: value for name, value in msgspec.to_builtins(tool).items() if value is not None}
    if isinstance(tool, OfferedTool) and tool.tools is not None:
        fields["tools"] = [tool_object(one) for one in tool.tools]
    return {"parameters": None, "strict": None, **fields} if tool.type == "function" else fields


def ended_response(call: Call, body: ResponsesBody, ended: Ended, text: str | None = None) -> dict[str, Any]:
    """Return the response of a call that was answered; ``text`` is what was streamed of it."""
    said = ended.text if text is None else text
    output: list[Any] = [message_item(call, said, ended)] if said or not ended.calls else []
    output += [call_item(call, one, number) for number, one in enumerate(ended.calls)]
    reason = INCOMPLETE.get(finish_reason(ended))
    if ended.status is TurnStatus.INTERRUPTED:
        return response_of(call, body, "cancelled", output, usage=usage_entry(ended.usage))
    if reason is None:
        return response_of(call, body, "completed", output, usage=usage_entry(ended.usage))
    details = {"reason": reason}
    return response_of(call, body, "incomplete", output, usage=usage_entry(ended.usage), incomplete_details=details)


def failed_response(call: Call, body: ResponsesBody, failed: Ended | Dead | GatewayStopping) -> dict[str, Any]:
    """Return the response of a streamed call that came to nothing."""
    error = failure(call, failed)[1]["error"]
    code = "rate_limit_exceeded" if error["code"] == "over_budget" else "server_error"
    return response_of(call, body, "failed", [], error={"code": code, "message": error["message"]})


async def stream(call: Call, body: ResponsesBody) -> AsyncGenerator[bytes]:
    """Follow a call and yield its server-sent events."""
    numbered = Numbered()
    begun = response_of(call, body, "in_progress", [])
    yield numbered("response.created", response=begun)
    yield numbered("response.in_progress", response=begun)
    shown, text = StreamedText(), ""
    while True:
        new = ""
        match await call.follower.next(KEEP_ALIVE_S):
            case None:
                yield b": keep-alive\n\n"
            case TurnStarted():
                shown.begin_again()
            case TextAdded(step, piece) if not call.again:  # who asks again has not read the beginning
                new = shown.add(step, piece)
            case ApprovalAsked(question):
                new = shown.put(question.text)
            case Ended() as ended if is_answer(ended):
                rest = shown.rest(ended.text)
                for event in text_events(numbered, call, text, rest):
                    yield event
                for event in closing_events(numbered, call, body, ended, text + rest):
                    yield event
                return
            case Ended() | Dead() | GatewayStopping() as failed:
                yield numbered("response.failed", response=failed_response(call, body, failed))
                return
        if new:
            for event in text_events(numbered, call, text, new):
                yield event
            text += new


class Numbered:
    """Writes server-sent events, each with its number."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, type: str, **fields: Any) -> bytes:  # noqa: A002 - the name of the protocol
        data = msgspec.json.encode({"type": type, "sequence_number": self._next} | fields)
        self._next += 1
        return b"event: " + type.encode() + b"\ndata: " + data + b"\n\n"


def text_events(numbered: Numbered, call: Call, before: str, new: str) -> Iterator[bytes]:
    """Yield what tells of more text, and before the first of the item that holds it."""
    if not new:
        return
    place = {"item_id": item_id(call), "output_index": 0, "content_index": 0}
    if not before:
        item = {"id": item_id(call), "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        yield numbered("response.output_item.added", output_index=0, item=item)
        yield numbered("response.content_part.added", **place, part=text_part(""))
    yield numbered("response.output_text.delta", **place, delta=new, logprobs=[])


def closing_events(numbered: Numbered, call: Call, body: ResponsesBody, ended: Ended, text: str) -> Iterator[bytes]:
    """Yield what tells of the end of the text, the calls handed over, and the end of the response."""
    response = ended_response(call, body, ended, text)
    for index, item in enumerate(response["output"]):
        if item["type"] == "message":
            place = {"item_id": item["id"], "output_index": index, "content_index": 0}
            if text:
                yield numbered("response.output_text.done", **place, text=text, logprobs=[])
                yield numbered("response.content_part.done", **place, part=item["content"][0])
            else:
                yield numbered("response.output_item.added", output_index=index, item=item | {"content": []})
        else:
            place = {"item_id": item["id"], "output_index": index}
            said = "input" if item["type"] == "custom_tool_call" else "arguments"
            kind = "custom_tool_call_input" if said == "input" else "function_call_arguments"
            empty = item | {said: "", "status": "in_progress"}
            yield numbered("response.output_item.added", output_index=index, item=empty)
            yield numbered(f"response.{kind}.delta", **place, delta=item[said])
            named = {} if said == "input" else {"name": item["name"]}
            yield numbered(f"response.{kind}.done", **place, **named, **{said: item[said]})
        yield numbered("response.output_item.done", output_index=index, item=item)
    # no event tells of a cancelled response: its stream is over as that of a completed one is
    kind = "completed" if response["status"] == "cancelled" else response["status"]
    yield numbered(f"response.{kind}", response=response)


def message_item(call: Call, text: str, ended: Ended) -> dict[str, Any]:
    """Return the output item that holds the assistant's words."""
    part = {"type": "refusal", "refusal": text} if is_withheld(ended) else text_part(text)
    return {"id": item_id(call), "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def text_part(text: str) -> dict[str, Any]:
    """Return a part that holds text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(call: Call, asked: ClientCall, number: int) -> dict[str, Any]:
    """Return the output item of a call of a client's tool, the ``number``-th of its response."""
    form = call.request.forms.get(asked.name, ToolForm(asked.name))
    item = {"id": f"{CALL_ITEM}{call.id}_{number}", "status": "completed", "call_id": asked.id, "name": form.name}
    if form.namespace:
        item["namespace"] = form.namespace
    if form.custom:
        return item | {"type": "custom_tool_call", "input": input_of(asked.arguments)}
    return item | {"type": "function_call", "arguments": asked.arguments}


def item_id(call: Call) -> str:
    """Return the id of the item that holds the assistant's words."""
    return f"{WORDS_ITEM}{call.id}"


def message_of_item(item: str) -> str:
    """Return the id of the message whose response has the item, empty where the id is none of ours."""
    if item.startswith(WORDS_ITEM):
        return item.removeprefix(WORDS_ITEM)
    return item.removeprefix(CALL_ITEM).rpartition("_")[0] if item.startswith(CALL_ITEM) else ""


def kept_items(message_id: str, ended: Ended) -> dict[str, InputItem]:
    """Return the items of a response by their ids, as a later call brings them."""
    words = InputItem(type="message", role="assistant", content=ended.text)
    calls = {
        f"{CALL_ITEM}{message_id}_{number}": InputItem(
            type="function_call", call_id=call.id, name=call.name, arguments=call.arguments
        )
        for number, call in enumerate(ended.calls)
    }
    return {f"{WORDS_ITEM}{message_id}": words} | calls


def usage_entry(usage: Usage) -> dict[str, Any]:
    """Return what a call used."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
