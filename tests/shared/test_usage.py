"""Usage: sums and differences, and what a model's tokens cost."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.prices import FREE, Price, read_price
from shared.usage import NOTHING, Usage, usage_entry

COUNT = st.integers(0, 10**9)
PLAIN = st.builds(Usage, *[COUNT] * 9)
USAGES = st.builds(
    lambda usage, models: msgspec.structs.replace(usage, models=models),
    PLAIN,
    st.dictionaries(st.sampled_from(["openai:a", "anthropic:b"]), PLAIN.filter(lambda usage: usage != NOTHING)),
)


@settings(max_examples=100)
@given(USAGES, USAGES)
def test_what_is_added_can_be_taken_away_again(one: Usage, other: Usage) -> None:
    assert one + other == other + one
    assert (one + other) - other == one
    assert one - (one + other) == NOTHING
    assert msgspec.json.decode(msgspec.json.encode(one), type=Usage) == one


def test_the_parts_of_a_price_are_for_the_tokens_they_name() -> None:
    price = read_price("3/15/0.3/3.75")
    assert price.of(Usage(input_tokens=1_000_000)) == 3_000_000_000
    assert price.of(Usage(output_tokens=1_000_000)) == 15_000_000_000
    assert price.of(Usage(input_tokens=1_000_000, cached_tokens=1_000_000)) == 300_000_000
    assert price.of(Usage(input_tokens=1_000_000, written_tokens=1_000_000)) == 3_750_000_000
    assert FREE.of(Usage(1, 1, 10**9, 10**9)) == 0


def test_what_a_price_leaves_out_costs_as_input() -> None:
    assert read_price("3/15") == Price(3 * 10**9, 15 * 10**9, 3 * 10**9, 3 * 10**9)
    assert read_price(" $0.5 / $1 / 0.05").written_nanos == 500_000_000


@pytest.mark.parametrize("text", ["", "3", "3/15/0.3/3.75/1", "a/b", "nan/3", "inf/3", "-1/3", "3/", "1e12/3"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reader of the setting names it
        read_price(text)


def test_a_cost_is_known_only_where_every_call_has_a_price() -> None:
    priced, unpriced = Usage(model_calls=1, cost_nanos=1_500_000_000), Usage(model_calls=1, unpriced_calls=1)
    assert priced.cost == 1.5
    assert (priced + unpriced).cost is None
    assert usage_entry(priced + unpriced)["cost"] is None
    assert usage_entry(NOTHING)["cost"] == 0
