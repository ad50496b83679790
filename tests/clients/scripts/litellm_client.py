"""LiteLLM: plain, streamed, tools, the reason an answer ended."""

import json
import os

import litellm

URL = os.environ["GATEHOUSE_URL"] + "/v1"
WHERE = {"model": "openai/gatehouse", "api_base": URL, "api_key": "none"}
TOOL = {
    "type": "function",
    "function": {"name": "roll", "parameters": {"type": "object", "properties": {"sides": {"type": "integer"}}}},
}

answer = litellm.completion(messages=[{"role": "user", "content": "hello"}], temperature=0.1, max_tokens=50, **WHERE)
assert answer.choices[0].message.content == "echo: hello"
assert answer.choices[0].finish_reason == "stop"
assert answer.usage.total_tokens > 0
chunks = litellm.completion(messages=[{"role": "user", "content": "hello"}], stream=True, **WHERE)
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo: hello"

messages = [{"role": "user", "content": '[[tool roll {"sides": 6}]] [[then]] [[say six it is]]'}]
asked = litellm.completion(messages=messages, tools=[TOOL], tool_choice="auto", **WHERE)
assert asked.choices[0].finish_reason == "tool_calls"
(call,) = asked.choices[0].message.tool_calls
assert json.loads(call.function.arguments) == {"sides": 6}
messages += [asked.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "6"}]
assert litellm.completion(messages=messages, tools=[TOOL], **WHERE).choices[0].message.content == "six it is"
