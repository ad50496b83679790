"""LangChain: plain, streamed, tools, structured output."""

import asyncio
import os

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

URL = os.environ["GATEHOUSE_URL"] + "/v1"
ROLL = '[[tool roll {"sides": 6}]] [[then]] [[say six it is]]'
ANN = '[[say {"name": "Ann", "age": 4}]]'


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def roll(sides: int) -> str:
    """Roll a die."""
    return str(sides)


model = ChatOpenAI(model="gatehouse", base_url=URL, api_key="none", temperature=0.2)
assert model.invoke("hello").content == "echo: hello"
assert "".join(str(chunk.content) for chunk in model.stream("hello")) == "echo: hello"
assert asyncio.run(model.ainvoke("hello")).content == "echo: hello"

asking = model.bind_tools([roll])
messages = [HumanMessage(ROLL)]
asked = asking.invoke(messages)
assert isinstance(asked, AIMessage)
assert asked.tool_calls[0]["args"] == {"sides": 6}
result = roll.invoke(asked.tool_calls[0])
assert isinstance(result, ToolMessage)
assert asking.invoke([*messages, asked, result]).content == "six it is"

assert model.with_structured_output(Person, method="json_schema").invoke(ANN) == Person(name="Ann", age=4)
called = model.with_structured_output(Person, method="function_calling")
assert called.invoke('[[tool Person {"name": "Ann", "age": 4}]]') == Person(name="Ann", age=4)
responses = ChatOpenAI(model="gatehouse", base_url=URL, api_key="none", use_responses_api=True)
assert responses.invoke("hello").text.strip() == "echo: hello"
