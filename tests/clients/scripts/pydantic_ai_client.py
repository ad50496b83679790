"""pydantic-ai: plain, tools, structured output by a tool, over both APIs."""

import os

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=os.environ["GATEHOUSE_URL"] + "/v1", api_key="none")


class Person(BaseModel):
    name: str
    age: int


for kind in (OpenAIChatModel, OpenAIResponsesModel):
    model = kind("gatehouse", provider=provider)
    assert Agent(model).run_sync("hello").output == "echo: hello"

    rolled = []
    agent = Agent(model)

    @agent.tool_plain
    def roll(sides: int) -> int:
        """Roll a die."""
        rolled.append(sides)  # noqa: B023 - run before the next round
        return sides

    assert agent.run_sync('[[tool roll {"sides": 6}]] [[then]] [[say six it is]]').output == "six it is"
    assert rolled == [6]
    structured = Agent(model, output_type=Person)
    assert structured.run_sync('[[tool final_result {"name": "Ann", "age": 4}]]').output == Person(name="Ann", age=4)
