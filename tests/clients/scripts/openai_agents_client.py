"""OpenAI's Agents SDK: plain, streamed, tools, structured output, a handoff, a second question; over both APIs."""

import asyncio
import os

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

ROLL = '[[tool roll {"sides": 6}]] [[then]] [[say six it is]]'
set_tracing_disabled(True)


class Person(BaseModel):
    name: str
    age: int


@function_tool
def roll(sides: int) -> str:
    """Roll a die."""
    return str(sides)


async def main() -> None:
    client = AsyncOpenAI(base_url=os.environ["GATEHOUSE_URL"] + "/v1", api_key="none")
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        model = kind(model="gatehouse", openai_client=client)
        agent = Agent(name="player", instructions="Be brief.", model=model, tools=[roll])
        assert (await Runner.run(agent, "hello")).final_output == "echo: hello"
        streamed = Runner.run_streamed(agent, ROLL)
        assert [event async for event in streamed.stream_events()]
        assert streamed.final_output == "six it is"
        again = [*streamed.to_input_list(), {"role": "user", "content": "and again"}]
        assert (await Runner.run(agent, again)).final_output == "echo: and again"
        structured = Agent(name="clerk", model=model, output_type=Person)
        assert (await Runner.run(structured, '[[say {"name": "Ann", "age": 4}]]')).final_output == Person(
            name="Ann", age=4
        )
        desk = Agent(name="desk", model=model, handoffs=[agent])
        handed = await Runner.run(desk, "[[tool transfer_to_player {}]] [[then]] [[say the player]]")
        assert (handed.final_output, handed.last_agent.name) == ("the player", "player")
    first = await Runner.run(agent, ROLL, auto_previous_response_id=True)
    after = await Runner.run(agent, "go on", previous_response_id=first.last_response_id)
    assert after.final_output == "echo: go on"


asyncio.run(main())
