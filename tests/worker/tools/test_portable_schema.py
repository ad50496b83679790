"""Schemas of strangers' tools: what every provider takes, whatever they hold, and arguments under their own names."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.tools.portable_schema import portable_schema

NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def parts(schema: Any) -> list[dict[str, Any]]:
    """Return every schema within a schema."""
    if isinstance(schema, dict):
        inner = [value for key, value in schema.items() if key not in {"enum", "const", "default", "examples"}]
        return [schema, *(part for value in inner for part in parts(value))]
    return [part for value in schema for part in parts(value)] if isinstance(schema, list) else []


def assert_portable(schema: dict[str, Any]) -> None:
    """Hold a schema to what each of the providers refuses."""
    assert schema["type"] == "object"
    assert not {"oneOf", "anyOf", "allOf", "not", "enum", "$ref"} & set(schema)
    assert set(schema.get("required", ())) <= set(schema["properties"])
    assert all(NAME.fullmatch(name) for name in schema["properties"])
    for part in parts(schema):
        assert "$ref" not in part or not isinstance(part["$ref"], str)
        assert part.get("type") != "array" or "items" in part


def test_members_of_a_union_at_the_top_are_joined_and_told_in_words() -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {}}, "required": ["city", "unit"]}
    place = {"properties": {"lat": {"type": "number"}, "unit": {}}, "required": ["lat", "unit"]}
    schema = portable_schema({"oneOf": [city, place], "description": "Where."}).schema
    assert_portable(schema)
    assert set(schema["properties"]) == {"city", "unit", "lat"}
    assert schema["required"] == ["unit"]
    assert schema["description"] == "Where. Give one of these sets of arguments: (city, unit) or (lat, unit)."


def test_all_of_at_the_top_needs_what_each_needs() -> None:
    members = [{"properties": {name: {}}, "required": [name]} for name in "ab"]
    schema = portable_schema({"type": "object", "allOf": members, "properties": {"c": {}}}).schema
    assert_portable(schema)
    assert (set(schema["properties"]), schema["required"]) == ({"a", "b", "c"}, ["a", "b"])


def test_references_are_written_out_and_one_that_leads_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "x": {"$ref": "#/definitions/x~1y"}}}
    schema = portable_schema(
        {
            "type": "object",
            "properties": {"root": {"$ref": "#/$defs/node", "description": "the first"}, "far": {"$ref": "http://x/y"}},
            "$defs": {"node": node},
            "definitions": {"x/y": {"type": "integer"}},
        }
    ).schema
    assert_portable(schema)
    root = schema["properties"]["root"]
    assert (root["description"], root["type"]) == ("the first", "object")
    assert root["properties"] == {"next": {}, "x": {"type": "integer"}}
    assert schema["properties"]["far"] == {}
    assert "$defs" not in schema


def test_odd_property_names_are_replaced_and_arguments_come_back_under_their_own() -> None:
    inner = {"type": "object", "properties": {"a b": {"type": "string"}}, "required": ["a b"]}
    made = portable_schema(
        {
            "type": "object",
            "properties": {
                "$filter": {},
                "filter": {},
                "größe": {},
                "x" * 80: {},
                "list": {"type": "array", "items": inner},
            },
            "required": ["$filter"],
        }
    )
    assert_portable(made.schema)
    (new,) = made.schema["required"]
    assert new != "filter"
    assert made.restore({new: 1, "filter": 2, "list": [{"a_b": "v"}]}) == {
        "$filter": 1,
        "filter": 2,
        "list": [{"a b": "v"}],
    }
    assert made == portable_schema(
        {"type": "object", **{"properties": dict(made_properties()), "required": ["$filter"]}}
    )


def made_properties() -> dict[str, Any]:
    inner = {"type": "object", "properties": {"a b": {"type": "string"}}, "required": ["a b"]}
    return {"$filter": {}, "filter": {}, "größe": {}, "x" * 80: {}, "list": {"type": "array", "items": inner}}


@pytest.mark.parametrize("schema", [None, {}, {"properties": None}, {"type": "object", "required": None}, True])
def test_a_schema_that_says_nothing_is_one_without_arguments(schema: object) -> None:
    assert_portable(portable_schema(schema).schema)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string"}, "of type string"),
        ({"type": "array", "items": {}}, "of type array"),
        ("object", "no object"),
        ([], "no object"),
        ({"properties": {"x": {"description": "x" * 200_000}}}, "longer than"),
    ],
)
def test_a_schema_that_cannot_be_shown_is_refused_with_the_reason(schema: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        portable_schema(schema)


WORDS = st.sampled_from(
    "type properties items required oneOf anyOf allOf $ref $defs enum description not additionalProperties".split()
) | st.text(max_size=4)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "array", "string", "#", "#/$defs/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)


@given(ANY)
@settings(max_examples=400)
def test_any_json_is_made_portable_or_refused(schema: Any) -> None:
    try:
        made = portable_schema(schema).schema
    except ValueError:
        return
    assert_portable(made)
    msgspec.json.encode(made)
