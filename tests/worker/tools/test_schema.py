"""Parameters: schemas from types, arguments checked against them."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import pathlib
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
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
@settings(max_examples=200)
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


class Address(pydantic.BaseModel):
    """Where somebody lives."""

    street: str = pydantic.Field(description="with its number")
    code: int = pydantic.Field(ge=1000)


class Parcel(TypedDict, total=False):
    weight: Annotated[float, msgspec.Meta(gt=0)]
    to: Address


@dataclasses.dataclass
class Bounded:
    floor: Annotated[int, msgspec.Meta(ge=0)]


def rich(
    eyes: Annotated[int, pydantic.Field(ge=1, le=6, description="what the die shows")],
    address: Address,
    parcel: Parcel,
    people: list[Person],
    bounded: Bounded,
    path: pathlib.Path,
    url: pydantic.HttpUrl,
    at: datetime.datetime,
    day: datetime.date,
    either: int | str,
    limit: int = pydantic.Field(5, ge=1, description="how many at most"),
    words: list[str] = pydantic.Field(default_factory=list),  # noqa: B008 - as people write it
    old: Annotated[int, msgspec.Meta(ge=1)] = 1,
    schema: str = "",
) -> str:
    return ""


RICH = {
    "eyes": 3,
    "address": {"street": "Ring 1", "code": "1010"},
    "parcel": {"weight": 1.5},
    "people": [{"name": "Ana"}],
    "bounded": {"floor": 1},
    "path": "/srv/x",
    "url": "https://example.com/a",
    "at": "2026-01-02T03:04:05Z",
    "day": "2026-01-02",
    "either": "5",
}


def test_bounds_descriptions_formats_and_models_reach_the_schema_in_the_order_of_the_function() -> None:
    schema = Parameters(rich).schema
    properties = schema["properties"]
    assert list(properties) == [*RICH, "limit", "words", "old", "schema"]
    assert schema["required"] == list(RICH)
    assert properties["eyes"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 6,
        "description": "what the die shows",
    }
    assert properties["limit"] == {"type": "integer", "minimum": 1, "description": "how many at most", "default": 5}
    assert properties["old"]["minimum"] == 1
    assert [properties[name]["format"] for name in ("path", "url", "at", "day")] == ["path", "uri", "date-time", "date"]
    assert properties["either"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    kinds = schema["$defs"]
    assert set(kinds) == {"Address", "Parcel", "Person", "Bounded"}
    assert kinds["Address"]["properties"]["street"] == {"type": "string", "description": "with its number"}
    assert kinds["Bounded"]["properties"]["floor"]["minimum"] == 0
    assert properties["people"] == {"type": "array", "items": {"$ref": "#/$defs/Person"}}


async def test_models_structs_dates_paths_and_urls_become_values_of_their_types() -> None:
    values = Parameters(rich).read(msgspec.json.encode(RICH).decode(), await make_context())
    assert values["address"] == Address(street="Ring 1", code=1010)
    assert values["people"] == [Person("Ana")]
    assert (values["path"], values["either"]) == (pathlib.Path("/srv/x"), "5")
    assert values["at"] == datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert (values["limit"], values["words"], values["old"]) == (5, [], 1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"eyes": 7}, "less than or equal to 6 - at `$.eyes`"),
        ({"eyes": "7"}, "less than or equal to 6 - at `$.eyes`"),
        ({"limit": 0}, "greater than or equal to 1 - at `$.limit`"),
        ({"old": 0}, "greater than or equal to 1 - at `$.old`"),
        ({"address": {"street": "Ring 1", "code": 1}}, "greater than or equal to 1000 - at `$.address.code`"),
        ({"address": {"code": 1010}}, "missing required field `street` - at `$.address`"),
        ({"parcel": {"weight": -1}}, "greater than 0 - at `$.parcel.weight`"),
        ({"people": [{"name": 5}]}, "at `$.people[0]`"),
        ({"bounded": {"floor": -1}}, "at `$.bounded`"),
        ({"url": "no url"}, "valid URL"),
        ({"at": "tomorrow"}, "valid datetime"),
        ({"day": "2026-13-01"}, "valid date"),
    ],
)
async def test_a_bound_or_a_format_that_is_not_kept_is_told_with_its_place(
    change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ToolError) as caught:
        Parameters(rich).read(msgspec.json.encode(RICH | change).decode(), await make_context())
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


class Unknown:
    pass


def test_a_type_that_json_cannot_hold_is_refused_with_the_name_of_its_parameter() -> None:
    def back(call: Callable[[], None]) -> None: ...

    def nested(things: list[Unknown]) -> None: ...

    for function, name in ((back, "call"), (nested, "things")):
        with pytest.raises(TypeError, match=f"parameter {name}: ") as caught:
            Parameters(function)
        assert "\n" not in str(caught.value)
