"""Markdown into every platform's dialect: the same visible text, code unchanged, markup that always closes."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import formatting
from gateway.chunking import cut
from gateway.formatting import Dialect, hush_slack, unmarked, write
from gateway.styled_text import read_markdown, visible

TELEGRAM_TAGS = {"b", "i", "s", "a", "code", "pre", "blockquote"}
CODE = "w*h*d = `x` <b> & c\n    indented *a* _b_ \\* [l](u)\n- not a list\n\n> no quote | | x"


class Reading(HTMLParser):
    """Checks that tags nest and are Telegram's, that none is in a code block, and collects what is seen."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TELEGRAM_TAGS, tag
        assert "pre" not in self.open or tag == "code"
        assert tag != "pre" or not self.open
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.seen += data


def telegram(markdown: str) -> str:
    return write(read_markdown(markdown), formatting.TELEGRAM_HTML)


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
        ("***both***", "<i><b>both</b></i>"), ("~~gone~~", "<s>gone</s>"),
        ("**bold *it* bold**", "<b>bold <i>it</i> bold</b>"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"), ("a ** b", "a ** b"),
        ("`a <b> *c*`", "<code>a &lt;b&gt; *c*</code>"), ("``a ` b``", "<code>a ` b</code>"),
        ("one ` two", "one ` two"),
        ("[t](https://x.y/?a=1&b=(2))", '<a href="https://x.y/?a=1&amp;b=(2)">t</a>'),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"), ("https://a.b/c_d_e_f", "https://a.b/c_d_e_f"),
        ("https://x.y/_a_/b and **https://x.y**", "https://x.y/_a_/b and <b>https://x.y</b>"),
        ("# Title #\ntext", "<b>Title</b>\ntext"), ("#hashtag", "#hashtag"), ("- a\n* b\n  + c", "• a\n• b\n  • c"),
        ("2. b\n3. c", "2. b\n3. c"), ("a\n\n\n\nb", "a\n\nb"), ("text\n===", "text\n==="),
        ("> a\n> *b*\n\nc", "<blockquote>a\n<i>b</i></blockquote>\n\nc"), ("\\*not it\\*", "*not it*"),
        ("**two\nlines**", "<b>two</b>\n<b>lines</b>"), ("[r]: https://x.y", "[r]: https://x.y"),
        ("```py\na < b\n```\nend", '<pre><code class="language-py">a &lt; b</code></pre>\nend'),
        ("```\nnever closed *x*", "<pre>never closed *x*</pre>"), ("~~~\n```\n~~~", "<pre>```</pre>"),
        ("| a | b |\n|---|---|\n| `x|y` | 2 |", "<pre>a     | b\n------+--\n`x|y` | 2</pre>"),
        ("before\n```\n```\nafter", "before\nafter"),
    ],
)  # fmt: skip
def test_markdown_becomes_the_html_that_telegram_reads(markdown: str, expected: str) -> None:
    """What has no counterpart stays text."""
    assert telegram(markdown) == expected
    seen(expected)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (formatting.WHATSAPP, "*T*\n*b* _i_ ~s~ `c` l (https://x.y)\n> q\n• a"),
        (formatting.GOOGLE_CHAT, "*T*\n*b* _i_ ~s~ `c` <https://x.y|l>\n> q\n• a"),
        (formatting.PLAIN, "T\nb i s c l (https://x.y)\n> q\n• a"),
        (formatting.MARKDOWN, "# T\n**b** *i* ~~s~~ `c` [l](https://x.y)\n> q\n- a"),
        (formatting.TEAMS_MARKDOWN, "# T\n**b** *i* ~~s~~ `c` [l](https://x.y)\n> q\n- a"),
        (
            formatting.MATRIX_HTML,
            '<b>T</b><br><b>b</b> <i>i</i> <del>s</del> <code>c</code> <a href="https://x.y">l</a><br>'
            "<blockquote>q</blockquote><br>• a",
        ),
    ],
)
def test_each_dialect_has_its_own_marks(dialect: Dialect, expected: str) -> None:
    """One tree, written in six ways."""
    assert (
        write(read_markdown("# T\n__b__ _i_ ~~s~~ `c` [l](https://x.y)\n> q\n\n- a").copy(), dialect)
        .replace("\n\n", "\n")
        .replace("<br><br>", "<br>")
        == expected
    )


def fenced(prefix: str) -> str:
    return "\n".join(prefix + line for line in ["```py", *CODE.split("\n"), "```"])


@pytest.mark.parametrize(
    "markdown",
    [
        fenced(""), "- item\n\n" + fenced("  "), "1. item\n" + fenced("    ") + "\n2. next",
        "- a\n    - b\n" + fenced("      "),
        "- item\n\n" + fenced("      ") + "\n- next", "text\n" + fenced("    ") + "\nend",
        "> q\n" + fenced("> ") + "\nend",
        "> q\n>\n" + fenced(">     "), "- a\n\n" + fenced("  > ") + "\nend", "1. > q\n" + fenced("   > "),
    ],
    ids=["top", "list", "list 4", "nested", "list 6", "no list", "quote", "quote 4", "quote in list", "list of quote"],
)  # fmt: skip
@pytest.mark.parametrize("name", [name for name, value in vars(formatting).items() if isinstance(value, Dialect)])
def test_code_arrives_unchanged_wherever_it_stands(name: str, markdown: str) -> None:
    """In lists, quotes and both, in every dialect, however far a model indents it."""
    written = write(read_markdown(markdown), getattr(formatting, name))
    assert CODE in (unmarked(written) if "HTML" in name else written)
    if name == "TELEGRAM_HTML":
        seen(written)
        assert f'<pre><code class="language-py">{formatting.escape_html(CODE)}</code></pre>' in written


MARKS = st.sampled_from(
    ["*", "**", "***", "_", "__", "~~", "`", "``", "```", "```py", "\n", "\n\n", " ", "a", "b c", "<", "&", ">", "\n> ",
     "\n- ", "\n1. ", "\n    ", "\n# ", "\n|a|", "\n|-|", "[", "](", "https://x.y", ")", "\\", '"', "👋", "---", "==="]
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(MARKS, max_size=60).map("".join))
def test_any_text_becomes_well_formed_html_that_shows_the_visible_text(markdown: str) -> None:
    """Nothing is lost on the way, and what can be sent as plain text is the same."""
    runs = read_markdown(markdown)
    assert seen(telegram(markdown)).split() == visible(runs).split() == unmarked(telegram(markdown)).split()


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*"ab1 .,👋\n", "word ", "\n\n"]), max_size=60).map("".join))
def test_words_without_marks_are_all_seen(markdown: str) -> None:
    """In every dialect, in their order."""
    for dialect in (value for value in vars(formatting).values() if isinstance(value, Dialect)):
        assert unmarked(write(read_markdown(markdown), dialect)).split() == markdown.split()


@settings(max_examples=200)
@given(st.text())
def test_no_text_breaks_the_html(markdown: str) -> None:
    """Any characters at all."""
    seen(telegram(markdown))


@pytest.mark.parametrize(
    "unit", ["*", "**a ", "_a ", "`", "` ", "[", "[a](", "[a](https://x", "# ", "#  x", "> ", "|", "| ", "```a\n", "\\",
             "<", "~~a", "- ", "![", "&", "http://", "\n    ```"]
)  # fmt: skip
def test_hostile_texts_take_no_long_time(unit: str) -> None:
    """Each is as long as a long answer; the worst is far from a second."""
    text = (unit * 8_000)[:8_000] + "x"
    started = time.process_time()
    cut(text, 4096, formatting.TELEGRAM_HTML, seen_only=True)
    assert time.process_time() - started < 1.0


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
