"""Results: any value of a function as the text that a model reads."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import pathlib
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.tools.results import error_text, result_text


class Size(enum.Enum):
    SMALL = "s"


class Order(pydantic.BaseModel):
    id: int
    at: datetime.date
    size: Size = Size.SMALL


@dataclasses.dataclass
class Box:
    order: Order
    tags: set[str]


class Row(msgspec.Struct):
    path: pathlib.Path


ORDER = Order(id=1, at=datetime.date(2026, 1, 2))
ORDER_JSON = {"id": 1, "at": "2026-01-02", "size": "s"}


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (ORDER, ORDER_JSON),
        ([ORDER], [ORDER_JSON]),
        (Box(ORDER, {"a"}), {"order": ORDER_JSON, "tags": ["a"]}),
        (Row(pathlib.Path("/x")), {"path": "/x"}),
        ({"row": Row(pathlib.Path("/x"))}, {"row": {"path": "/x"}}),
        ((1, 2), [1, 2]),
        (frozenset({1}), [1]),
        ({Size.SMALL: datetime.timedelta(seconds=1)}, {"s": "PT1S"}),
        (float("nan"), None),
        ({"kind": object}, {"kind": "<class 'object'>"}),
    ],
)
def test_values_become_json_by_their_parts_and_not_by_their_repr(value: object, read: Any) -> None:
    assert json.loads(result_text(value)) == read


def test_bytes_are_the_text_they_hold_or_are_named() -> None:
    assert result_text("grün".encode()) == "grün"
    assert result_text(b"\x89PNG\r\n\x1a\n\x00") == "[9 bytes of image/png, which cannot be shown here]"
    assert result_text(bytearray(b"\xff\x00")) == "[2 bytes of application/octet-stream, which cannot be shown here]"


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_cannot_tell_itself_is_named() -> None:
    assert error_text(Silent()) == "Silent: (its text cannot be read: RuntimeError)"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON.filter(lambda value: value is not None and not isinstance(value, str)))
@settings(max_examples=100)
def test_what_is_json_already_reads_back_as_it_was(value: Any) -> None:
    assert json.loads(result_text(value)) == value
