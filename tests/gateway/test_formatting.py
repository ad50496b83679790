"""Markdown into Telegram's HTML and Slack's texts."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chunking import units
from gateway.formatting import escape_slack, hush_slack, telegram_html

TELEGRAM_TAGS = {"b", "i", "s", "u", "a", "code", "pre", "blockquote"}


class Reading(HTMLParser):
    """Checks that tags nest and collects what is seen."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TELEGRAM_TAGS, tag
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.seen += data


def seen(markup: str) -> str:
    reading = Reading()
    reading.feed(markup)
    reading.close()
    assert reading.open == []
    return reading.seen


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("plain & <b>", "plain &amp; &lt;b&gt;"),
        ("**bold** and *it* and _it_ and __b__", "<b>bold</b> and <i>it</i> and <i>it</i> and <b>b</b>"),
        ("***both***", "<b><i>both</i></b>"), ("~~gone~~", "<s>gone</s>"),
        ("**bold *it* bold**", "<b>bold <i>it</i> bold</b>"), ("**a *b** c*", "<b>a *b</b> c*"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"), ("a ** b", "a ** b"), ("****", "****"),
        ("`a <b> *c*`", "<code>a &lt;b&gt; *c*</code>"), ("``a ` b``", "<code>a ` b</code>"),
        ("one ` two", "one ` two"),
        ("[t*e*](https://x.y/?a=1&b=(2))", '<a href="https://x.y/?a=1&amp;b=(2)">t*e*</a>'),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"), ("https://a.b/c_d_e_f", "https://a.b/c_d_e_f"),
        ("# Title #\ntext", "<b>Title</b>\ntext"), ("#hashtag", "#hashtag"), ("- a\n* b\n  + c", "• a\n• b\n  • c"),
        ("> a\n> *b*\nc", "<blockquote>a\n<i>b</i></blockquote>\nc"), ("\\*not it\\*", "*not it*"),
        ("```py\na < b\n```\nend", '<pre><code class="language-py">a &lt; b</code></pre>\nend'),
        ("```\nnever closed *x*", "<pre>never closed *x*</pre>"), ("~~~\n```\n~~~", "<pre>```</pre>"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "<pre>| a | b |\n|---|---|\n| 1 | 2 |</pre>"),
    ],
)  # fmt: skip
def test_markdown_becomes_the_html_that_telegram_reads(markdown: str, expected: str) -> None:
    """What has no counterpart stays text."""
    assert telegram_html(markdown) == expected
    seen(expected)


MARKS = st.sampled_from(
    ["*", "**", "***", "_", "__", "~~", "`", "``", "```", "```py", "\n", "\n\n", " ", "a", "b c", "<", "&", ">", "\n> ",
     "\n- ", "\n# ", "\n|a|", "[", "](", "https://x.y", ")", "\\", '"', "👋"]
)  # fmt: skip


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.lists(MARKS, max_size=60).map("".join))
def test_any_text_becomes_well_formed_html_that_shows_no_more_than_the_text(markdown: str) -> None:
    """So a chunk that fits as Markdown fits as HTML."""
    assert units(seen(telegram_html(markdown))) <= units(markdown)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text())
def test_no_text_breaks_the_html(markdown: str) -> None:
    """Any characters at all."""
    seen(telegram_html(markdown))


@pytest.mark.parametrize(
    "unit",
    [
        "*",
        "**a ",
        "_a ",
        "`",
        "` ",
        "[",
        "[a](",
        "[a](https://x",
        "# ",
        "#  x",
        "> ",
        "|",
        "| ",
        "```a\n",
        "\\",
        "<",
        "~~a",
        "- ",
    ],
)
def test_hostile_texts_take_no_long_time(unit: str) -> None:
    """Each is 40 kB, ten messages' worth; the work is linear."""
    text = (unit * 40_000)[:40_000] + "x"
    started = time.process_time()
    telegram_html(text)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!channel> <!here> <!everyone>", "<\u200b!channel> <\u200b!here> <\u200b!everyone>"),
        ("<@U123> <!subteam^S1|x>", "<\u200b@U123> <\u200b!subteam^S1|x>"),
        ("<!-- note --> <!DOCTYPE html> <https://x.y>", "<!-- note --> <!DOCTYPE html> <https://x.y>"),
    ],
)
def test_what_rings_people_on_slack_is_broken(text: str, expected: str) -> None:
    """Once: hushing twice changes nothing. What rings nobody is left alone."""
    assert hush_slack(text) == expected
    assert hush_slack(expected) == expected


def test_three_characters_are_escaped_for_slacks_plain_text() -> None:
    """No others."""
    assert escape_slack('a & <b> "c"') == 'a &amp; &lt;b&gt; "c"'
