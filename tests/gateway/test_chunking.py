"""The laws of cutting an answer: within the limit, nothing visible lost, nothing cut that belongs together."""

from __future__ import annotations

import re
import time

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import formatting
from gateway.chunking import code_points, cut, utf8_bytes, utf16_units
from gateway.formatting import PLAIN, TELEGRAM_HTML, Dialect, unmarked
from gateway.styled_text import read_markdown, visible

LIMIT = 200
FAMILY = "👨‍👩‍👧‍👦"
FLAG = "🇫🇷"
DIALECTS = {name: value for name, value in vars(formatting).items() if isinstance(value, Dialect)}

PIECES = st.sampled_from(
    ["word ", "longer-word-here ", "\n", "\n\n", "👋", FAMILY, FLAG, "e\u0301", "👍🏽", "```\n", "\n```py\n", "`code` ",
     "**bold words** ", "*it", "\n- item ", "\n> quote ", "\n1. one ", "[a link](https://example.com/a/b) ", "# ",
     "https://example.com/long/path?q=1 ", " ", "x" * 70, "漢字", "\n    deep"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=80).map("".join)


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def shown(chunk: str, dialect: Dialect) -> str:
    """What is seen of a chunk: HTML unmarked, Markdown read again, other marks as they are."""
    if dialect.html:
        return squeezed(unmarked(chunk))
    return squeezed(visible(read_markdown(chunk))) if dialect.markdown else squeezed(chunk)


def letters(text: str) -> str:
    """The letters of a text without the url of its links, which some dialects show."""
    return re.sub(r"[^\w👋]|_", "", text).replace("httpsexamplecomab", "")


@settings(max_examples=250)
@given(TEXTS)
@pytest.mark.parametrize("name", DIALECTS)
def test_every_chunk_fits_and_nothing_visible_is_lost_or_added(name: str, text: str) -> None:
    """In every dialect; where the marks cannot be told from text, they are only counted."""
    dialect = DIALECTS[name]
    chunks = cut(text, LIMIT, dialect)
    assert all(0 < utf16_units(chunk) <= LIMIT and chunk.strip() for chunk in chunks)
    seen = "".join(shown(chunk, dialect) for chunk in chunks)
    if dialect.html:
        assert seen == squeezed(visible(read_markdown(text)))
    else:
        assert letters(seen) == letters(visible(read_markdown(text)))


@settings(max_examples=200)
@given(st.lists(st.sampled_from([FAMILY, FLAG, "e\u0301", "👍🏽", "👋", "각", "क्षि", " "]), max_size=120))
def test_no_grapheme_is_cut(graphemes: list[str]) -> None:
    """Families, flags, skin tones, accents and syllables stay whole."""
    text = "".join(graphemes)
    whole = regex.findall(r"\X", text.strip())
    cut_up = [found for chunk in cut(text, LIMIT, PLAIN) for found in regex.findall(r"\X", chunk)]
    assert [found for found in cut_up if found != " "] == [found for found in whole if found != " "]


@pytest.mark.parametrize("measure", [code_points, utf16_units, utf8_bytes])
@pytest.mark.parametrize(
    "text", ["a" * 12_288, "👋" * 6_144, "x" * 10_000, "a b " * 3_000, "\u0301" * 5_000, "漢" * 9_000]
)
def test_texts_of_three_times_the_limit_are_cut_into_full_chunks(text: str, measure: object) -> None:
    """In each unit. The fifth is one endless grapheme, which has to be cut somewhere."""
    assert callable(measure)
    chunks = cut(text, 4096, PLAIN, measure)
    assert all(measure(chunk) <= 4096 for chunk in chunks)
    assert squeezed("".join(chunks)) == squeezed(text)
    assert len(chunks) <= measure(text) // 4096 + 2


def test_a_text_that_fits_is_one_chunk_as_it_is() -> None:
    """Up to the very limit."""
    assert cut("a" * LIMIT, LIMIT) == ["a" * LIMIT]
    code = "```py\n" + "a" * (LIMIT - 10) + "\n```"
    assert cut(code, LIMIT, formatting.MARKDOWN) == [code]


@pytest.mark.parametrize("text", ["", " ", "\n\n \n", "```\n```", "> "])
def test_a_blank_text_has_no_chunks(text: str) -> None:
    """A platform refuses blank messages."""
    assert cut(text, LIMIT, TELEGRAM_HTML) == []


@pytest.mark.parametrize("prefix", ["", "    ", "> "])
def test_code_goes_on_in_a_block_of_its_language(prefix: str) -> None:
    """Each chunk has whole fences, and the lines inside stay whole, also those of code in lists and quotes."""
    code = "\n".join(f"    line_{number} = {number}" for number in range(60))
    indented = "\n".join(prefix + line for line in ["```python", *code.split("\n"), "```"])
    chunks = cut(f"1. Look:\n\n{indented}\n\nDone.", LIMIT, formatting.MARKDOWN)
    assert len(chunks) > 3
    for chunk in chunks[1:-1]:
        assert chunk.startswith("```python\n")
        assert chunk.endswith("\n```")
    found = [line for chunk in chunks for line in chunk.split("\n") if "line_" in line]
    assert found == code.split("\n")
    assert chunks[-1].endswith("Done.")


def test_one_endless_line_of_code_makes_full_messages_of_code() -> None:
    """Not an empty block and stubs."""
    line = '{"key": "' + "value " * 1_500 + '"}'
    chunks = cut(f"Here:\n\n```json\n{line}\n```\n", 4096, TELEGRAM_HTML, seen_only=True)
    assert len(chunks) == 4
    blocks = [re.search(r'<pre><code class="language-json">(.*)</code></pre>$', chunk, re.DOTALL) for chunk in chunks]
    assert chunks[0] == "Here:"
    assert "".join(unmarked(block[1]) for block in blocks if block) == line
    assert all(len(unmarked(chunk)) > 3_000 for chunk in chunks[1:-1])


def test_a_cut_falls_between_paragraphs_where_it_can() -> None:
    """Then between lines, then between words."""
    first, second = "a " * 70, "b " * 60
    assert cut(f"{first}\n\n{second}", LIMIT) == [first.rstrip(), second.rstrip()]
    assert cut(f"{first}\n{second}", LIMIT) == [first.rstrip(), second.rstrip()]


def test_marks_are_closed_at_a_cut_and_opened_again() -> None:
    """No message holds half of a pair."""
    chunks = cut("**" + "bold words " * 40 + "end**", LIMIT, formatting.MARKDOWN)
    assert len(chunks) > 2
    assert all(chunk.startswith("**") and chunk.endswith("**") and chunk.count("**") == 2 for chunk in chunks)


def test_no_link_is_cut() -> None:
    """A cut one is no link any more."""
    link = "[a label of many words](https://example.com/some/path)"
    for before in range(140, 200):
        chunks = cut("x" * before + " " + link, LIMIT, formatting.MARKDOWN)
        assert link in chunks[-1], before


def test_a_line_that_is_cut_off_begins_no_block_of_its_own() -> None:
    """``# bar`` in the middle of a line is no heading in the next message either."""
    for mark in ("# ", "- ", "1. ", "> ", "+ "):
        for before in range(180, 202):
            text = "x" * before + " " + mark + "bar baz"
            chunks = cut(text, LIMIT, formatting.MARKDOWN)
            assert squeezed("".join(visible(read_markdown(chunk)) for chunk in chunks)) == squeezed(text), (
                mark,
                before,
            )


@pytest.mark.parametrize(
    "text",
    ["`" * 30_000, "```\n" * 8_000, "[a](http://" * 3_000, "\n" * 100_000, "\u200d" * 30_000,
     FLAG[0] * 30_000, "~~~a\n" * 8_000, "```\na\n```\n" * 5_000, "- " * 5_000, "> " * 5_000,
     "**wo** *rd* `c` " * 3_750, "- **a** b\n" * 6_000, "a ``` b\n# h\n" * 5_000, "- a\n  - b\n    - c\n" * 3_000],
)  # fmt: skip
def test_hostile_texts_take_no_long_time(text: str) -> None:
    """Far below what would be noticed: long ones are cut in a thread."""
    started = time.process_time()
    chunks = cut(text, 4096, formatting.MARKDOWN)
    assert time.process_time() - started < 3.0
    assert all(utf16_units(chunk) <= 4096 for chunk in chunks)
