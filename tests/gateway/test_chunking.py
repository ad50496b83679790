"""The laws of cutting a text: within the limit, nothing visible lost, nothing cut that belongs together."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chunking import split, units

LIMIT = 200
FAMILY = "👨‍👩‍👧‍👦"
FLAG = "🇫🇷"

PIECES = st.sampled_from(
    ["word ", "longer-word-here ", "\n", "\n\n", "👋", FAMILY, FLAG, "e\u0301", "👍🏽", "```\n", "\n```py\n", "`code`",
     "~~~\n", "[a link](https://example.com/a/b)", "https://example.com/long/path?q=1", " ", "x" * 70, "漢字"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=80).map("".join)


def visible(text: str) -> str:
    """What is left without blanks and without fence lines."""
    lines = [line for line in text.split("\n") if not re.fullmatch(r" {0,3}(`{3,12}|~{3,12})[^`]*", line)]
    return re.sub(r"\s", "", "".join(lines))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(TEXTS)
def test_every_chunk_fits_and_nothing_visible_is_lost(text: str) -> None:
    """Fence lines are the only thing that comes twice."""
    chunks = split(text, LIMIT)
    assert all(0 < units(chunk) <= LIMIT for chunk in chunks)
    assert all(chunk.strip() for chunk in chunks)
    assert "".join(visible(chunk) for chunk in chunks) == visible(text)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(TEXTS.filter(lambda text: "```" not in text and "~~~" not in text))
def test_without_fences_the_chunks_are_the_text_but_for_blanks(text: str) -> None:
    """Nothing is added, nothing comes twice."""
    assert re.sub(r"\s", "", "".join(split(text, LIMIT))) == re.sub(r"\s", "", text)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([FAMILY, FLAG, "e\u0301", "👍🏽", "👋"]), max_size=120))
def test_no_grapheme_is_cut(graphemes: list[str]) -> None:
    """Families, flags, skin tones and accents stay whole."""
    chunks = split("".join(graphemes), LIMIT)
    for chunk in chunks:
        rest = chunk
        for whole in (FAMILY, FLAG, "e\u0301", "👍🏽", "👋"):
            rest = rest.replace(whole, "")
        assert rest == ""


@pytest.mark.parametrize("text", ["a" * 12_288, "👋" * 6_144, "x" * 10_000, "a b " * 3_000, "\u0301" * 5_000])
def test_texts_of_three_times_the_limit_are_cut_into_full_chunks(text: str) -> None:
    """The last is one endless grapheme, which has to be cut somewhere."""
    chunks = split(text, 4096)
    assert all(units(chunk) <= 4096 for chunk in chunks)
    assert re.sub(r"\s", "", "".join(chunks)) == re.sub(r"\s", "", text)
    assert len(chunks) <= 4


def test_a_text_that_fits_is_one_chunk_as_it_is() -> None:
    """Up to the very limit."""
    assert split("a" * LIMIT, LIMIT) == ["a" * LIMIT]
    assert split("```py\n" + "a" * (LIMIT - 10) + "\n```", LIMIT) == ["```py\n" + "a" * (LIMIT - 10) + "\n```"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \n"])
def test_a_blank_text_has_no_chunks(text: str) -> None:
    """A platform refuses blank messages."""
    assert split(text, LIMIT) == []


def test_code_goes_on_in_a_fence_of_its_language() -> None:
    """Each chunk has whole fences, and the lines inside stay whole."""
    code = "\n".join(f"line_{number} = {number}" for number in range(60))
    chunks = split(f"Look:\n\n```python\n{code}\n```\nDone.", LIMIT)
    assert len(chunks) > 3
    for chunk in chunks[1:-1]:
        assert chunk.startswith("```python\n")
        assert chunk.endswith("\n```")
    found = [line for chunk in chunks for line in chunk.split("\n") if line.startswith("line_")]
    assert found == code.split("\n")
    assert chunks[-1].endswith("Done.")


def test_a_cut_falls_between_paragraphs_where_it_can() -> None:
    """Then between lines, then between words."""
    first, second = "a " * 70, "b " * 60
    assert split(f"{first}\n\n{second}", LIMIT) == [first.rstrip(), second.rstrip()]
    assert split(f"{first}\n{second}", LIMIT) == [first.rstrip(), second.rstrip()]


def test_no_link_is_cut() -> None:
    """A cut one is no link any more."""
    link = "[a label of many words](https://example.com/some/path)"
    for before in range(140, 200):
        chunks = split("x" * before + " " + link, LIMIT)
        assert link in chunks[-1], before


@pytest.mark.parametrize(
    "text",
    ["`" * 100_000, "```\n" * 25_000,
      "[a](http://" * 10_000, "\n" * 100_000, "\u200d" * 50_000,
     FLAG[0] * 50_000, "~~~a\n" * 20_000, "```\na\n```\n" * 20_000],
)  # fmt: skip
def test_hostile_texts_take_no_long_time(text: str) -> None:
    """Far below a second for 100 kB; the work is linear."""
    started = time.process_time()
    chunks = split(text, 4096)
    assert time.process_time() - started < 1.0
    assert all(units(chunk) <= 4096 for chunk in chunks)
