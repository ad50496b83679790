"""Parameters: schemas from types, arguments checked against them."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ToolError
from worker.agent.todo import TodoStore
from worker.tools import ToolContext
from worker.tools.schema import Parameters, description


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Place:
    city: str
    floor: int = 0


class Person(msgspec.Struct):
    name: str


def everything(
    text: str,
    count: int,
    share: float,
    sure: bool,
    words: list[str],
    table: dict[str, int],
    colour: Colour,
    size: Literal["s", "m"],
    place: Place,
    person: Person | None = None,
    many: list[int] = [1, 2],  # noqa: B006 - a default of the kind people write
    limit: Annotated[int, "how many at most"] = 10,
) -> str:
    """Take one of each.

    And say so.
    """
    return f"{place} {person} {many}"


def wants_context(context: ToolContext, word: str) -> str:
    return f"{context.call_id} {word}"


async def make_context() -> ToolContext:
    return ToolContext("a:b:c", "msg_1", "call_1", TodoStore())


GIVEN = {
    "text": "t",
    "count": 1,
    "share": 0.5,
    "sure": True,
    "words": ["a"],
    "table": {"a": 1},
    "colour": "red",
    "size": "s",
    "place": {"city": "Bonn"},
}


def test_types_become_a_json_schema() -> None:
    schema = Parameters(everything).schema
    properties = schema["properties"]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(GIVEN)
    assert properties["count"] == {"type": "integer"}
    assert properties["words"] == {"type": "array", "items": {"type": "string"}}
    assert properties["size"]["enum"] == ["m", "s"]
    assert properties["limit"] == {"type": "integer", "description": "how many at most", "default": 10}
    assert set(schema["$defs"]) == {"Colour", "Place", "Person"}
    assert description(everything) == "Take one of each.\n\nAnd say so."


async def test_arguments_become_values_of_their_types() -> None:
    values = Parameters(everything).read(msgspec.json.encode(GIVEN).decode(), await make_context())
    assert values["colour"] is Colour.RED
    assert values["place"] == Place("Bonn")
    assert values["limit"] == 10
    assert everything(**values).endswith("None [1, 2]")


async def test_a_mutable_default_is_not_shared_between_calls() -> None:
    parameters = Parameters(everything)
    text, context = msgspec.json.encode(GIVEN).decode(), await make_context()
    parameters.read(text, context)["many"].append(3)
    assert parameters.read(text, context)["many"] == [1, 2]


async def test_a_number_in_quotes_is_read_as_the_number_it_is() -> None:
    def roll(sides: int) -> str:
        return str(sides)

    assert Parameters(roll).read('{"sides": "6"}', await make_context()) == {"sides": 6}


async def test_the_context_is_filled_in_and_left_out_of_the_schema() -> None:
    parameters = Parameters(wants_context)
    context = await make_context()
    assert list(parameters.schema["properties"]) == ["word"]
    assert wants_context(**parameters.read('{"word": "w"}', context)) == "call_1 w"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"word": 5}', "Expected `str`, got `int` - at `$.word`"),
        ("{}", "missing required field `word`"),
        ('{"word": "w", "wort": "x"}', "unknown field `wort`"),
        ('{"context": 1, "word": "w"}', "unknown field `context`"),
        ("[]", "Expected `object`"),
        ('{"word": "w"', "not valid JSON"),
        ("word", "not valid JSON"),
        ("[" * 100_000, "not"),
        ('{"word": "\udc80"}', "not valid JSON"),
    ],
)
async def test_wrong_arguments_are_told_in_words(arguments: str, problem: str) -> None:
    with pytest.raises(ToolError, match="arguments") as caught:
        Parameters(wants_context).read(arguments, await make_context())
    assert problem in str(caught.value)


@given(st.text() | st.binary().map(repr) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_nothing_a_model_writes_raises_anything_but_a_tool_error(arguments: str) -> None:
    parameters = Parameters(lambda word: word)
    context: Any = None
    try:
        parameters.read(arguments, context)
    except ToolError as error:
        assert str(error)  # noqa: PT017 - any other exception fails the test


def test_functions_that_cannot_be_called_by_name_are_refused() -> None:
    def variadic(*words: str) -> str:
        return "".join(words)

    def positional(word: str, /) -> str:
        return word

    def keywords(**words: str) -> str:
        return "".join(words)

    def strange(lock: memoryview, pair: complex) -> str:
        return str((lock, pair))

    for function in (variadic, positional, keywords, strange):
        with pytest.raises(TypeError):
            Parameters(function)
