"""instructor: a model of pydantic's by a tool, and by a schema."""

import os

import instructor
import openai
from pydantic import BaseModel

sdk = openai.OpenAI(base_url=os.environ["GATEHOUSE_URL"] + "/v1", api_key="none")


class Person(BaseModel):
    name: str
    age: int


def ask(mode: instructor.Mode, text: str) -> dict[str, object]:
    client = instructor.from_openai(sdk, mode=mode)
    found = client.chat.completions.create(
        model="gatehouse", response_model=Person, messages=[{"role": "user", "content": text}]
    )
    return found.model_dump()


assert ask(instructor.Mode.TOOLS, '[[tool Person {"name": "Ann", "age": 4}]]') == {"name": "Ann", "age": 4}
assert ask(instructor.Mode.JSON_SCHEMA, '[[say {"name": "Ann", "age": 4}]]') == {"name": "Ann", "age": 4}
