"""Styled text in the dialect of each platform: HTML subsets, Markdown, the marks of phone messengers, plain text.

What a dialect cannot show stays readable: a link without a label form becomes ``label (url)``, a table a code block.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from gateway.styled_text import Mark, Run, Style

#: what rings everybody, a group, or somebody on Slack
RINGING = re.compile(r"<(?=!(?:channel|here|everyone|group|subteam)|@[A-Z0-9])")

#: styles that take whole lines
BLOCKS = frozenset({Style.BLOCK, Style.TABLE, Style.QUOTE})

BOLD = {Style.BOLD: ("*", "*"), Style.HEADING: ("*", "*")}


def as_is(text: str) -> str:
    """Return the text."""
    return text


def escape_html(text: str) -> str:
    """Escape the three characters that mean something in HTML text, and in Slack's."""
    return html.escape(text, quote=False)


def hush_slack(text: str) -> str:
    """Break Slack's tokens that ring people, by a character that is not seen."""
    return RINGING.sub("<\N{ZERO WIDTH SPACE}", text)


def labelled(label: str, url: str) -> str:
    """Write a link where none can have a label."""
    return label if label == url or not url else f"{label} ({url.removeprefix('mailto:')})"


def html_link(label: str, url: str) -> str:
    """Write a link as HTML, where its url is one that may be followed from a chat."""
    return f'<a href="{html.escape(url)}">{label}</a>' if url.startswith(LINKED) else labelled(label, html.escape(url))


def markdown_link(label: str, url: str) -> str:
    """Write a link as Markdown; one that is its own label is written bare."""
    return url if label == url else f"[{label}](<{url}>)" if re.search(r"[\s()]", url) else f"[{label}]({url})"


def slack_link(label: str, url: str) -> str:
    """Write a link as Google Chat and Slack's ``text`` have it."""
    return f"<{url}>" if label == url else f"<{url}|{label.replace('|', '/')}>"


LINKED = ("http://", "https://", "mailto:", "tg://")


def unmarked(markup: str) -> str:
    """Return what is seen of HTML that ``write`` wrote."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup.replace("<br>", "\n")))


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How a platform writes styled text."""

    #: what stands around the text of a style, on each line of it
    marks: Mapping[Style, tuple[str, str]] = {}
    #: what is done to text, and to code
    escape: Callable[[str], str] = as_is
    link: Callable[[str, str], str] = labelled
    #: text is written as its Markdown source
    markdown: bool = False
    #: tables are shown as Markdown has them
    tables: bool = False
    #: quotes and code blocks are elements of HTML
    html: bool = False
    newline: str = "\n"
    #: code blocks have marks of their own
    fenced: bool = True


PLAIN = Dialect(fenced=False)
TELEGRAM_HTML = Dialect(
    marks={
        Style.BOLD: ("<b>", "</b>"),
        Style.HEADING: ("<b>", "</b>"),
        Style.ITALIC: ("<i>", "</i>"),
        Style.STRIKE: ("<s>", "</s>"),
        Style.CODE: ("<code>", "</code>"),
    },
    escape=escape_html,
    link=html_link,
    html=True,
)
MATRIX_HTML = msgspec.structs.replace(
    TELEGRAM_HTML,
    marks={**TELEGRAM_HTML.marks, Style.STRIKE: ("<del>", "</del>")},
    newline="<br>",
)
MARKDOWN_MARKS = {
    Style.BOLD: ("**", "**"),
    Style.ITALIC: ("*", "*"),
    Style.STRIKE: ("~~", "~~"),
    Style.CODE: ("`", "`"),
}
MARKDOWN = Dialect(marks=MARKDOWN_MARKS, link=markdown_link, markdown=True, tables=True)
SLACK_MARKDOWN = msgspec.structs.replace(MARKDOWN, escape=hush_slack)
DISCORD_MARKDOWN = msgspec.structs.replace(MARKDOWN, tables=False)
TEAMS_MARKDOWN = msgspec.structs.replace(DISCORD_MARKDOWN, escape=lambda text: text.replace("<", "&lt;"))
WHATSAPP = Dialect(
    marks={**BOLD, Style.ITALIC: ("_", "_"), Style.STRIKE: ("~", "~"), Style.CODE: ("`", "`")},
)
GOOGLE_CHAT = msgspec.structs.replace(WHATSAPP, link=slack_link)


def write(runs: Sequence[Run], dialect: Dialect) -> str:
    """Write runs in a dialect."""
    return "".join(write_block(block, list(group), dialect) for block, group in itertools.groupby(runs, block_of))


def block_of(run: Run) -> Mark | None:
    """Return the mark of a run that takes whole lines."""
    return next((mark for mark in run.marks if mark.style in BLOCKS), None)


def write_block(block: Mark | None, runs: list[Run], dialect: Dialect) -> str:
    """Write runs that share a block: code, a table, a quote, or text."""
    match block:
        case Mark(Style.TABLE) if dialect.tables:
            return "".join(run.markdown for run in runs)
        case Mark(Style.BLOCK | Style.TABLE, language):
            code = "".join(run.text for run in runs)
            return write_code(code, language if block.style is Style.BLOCK else "", dialect)
        case Mark(Style.QUOTE):
            lines = write_lines(runs, dialect)
            if dialect.html:
                return f"<blockquote>{dialect.newline.join(lines)}</blockquote>"
            return "\n".join(f"> {line}".rstrip() for line in lines)
        case _:
            return dialect.newline.join(write_lines(runs, dialect))


def write_code(code: str, language: str, dialect: Dialect) -> str:
    """Write a code block; its content is never changed, but for what HTML escapes."""
    if dialect.html:
        escaped = escape_html(code)
        name = html.escape(language)
        return f'<pre><code class="language-{name}">{escaped}</code></pre>' if name else f"<pre>{escaped}</pre>"
    if not dialect.fenced:
        return code
    fence = fence_for(code)
    return f"{fence}{language.replace('`', '') if dialect.markdown else ''}\n{code}\n{fence}"


def fence_for(code: str) -> str:
    """Return a fence longer than any run of backticks in the code."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))


def write_lines(runs: Iterable[Run], dialect: Dialect) -> list[str]:
    """Write text line by line, so that no mark spans two lines."""
    lines: list[list[Run]] = [[]]
    for run in runs:
        marks = tuple(mark for mark in run.marks if mark.style not in BLOCKS)
        for number, part in enumerate(run.text.split("\n")):
            if number:
                lines.append([])
            lines[-1].append(Run(part, marks, run.source))
    return [write_span(trimmed(line), dialect, 0, frozenset()) for line in lines]


def trimmed(line: Iterable[Run]) -> list[Run]:
    """Take the blanks at the edges of marks out of them: ``**a **b`` is no bold text in any dialect."""
    parts = []
    for run in line:
        core = run.text.strip()
        if (core and core == run.text) or run.source is not None or run.has(Style.CODE):
            parts.append(run)
            continue
        before, after = run.text.partition(core)[::2] if core else (run.text, "")
        parts += [run._replace(text=text) for text in (before, core, after) if text]
    for at, run in enumerate(parts):
        if run.marks and run.source is None and run.text.isspace() and not run.has(Style.CODE):
            around = [parts[place].marks for place in (at - 1, at + 1) if 0 <= place < len(parts)]
            parts[at] = run._replace(marks=common(*around) if len(around) == 2 else ())
    return parts


def common(first: tuple[Mark, ...], second: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Return the marks that two runs begin with alike."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return tuple(mark for mark, _ in pairs)


def write_span(runs: Sequence[Run], dialect: Dialect, depth: int, opened: frozenset[str]) -> str:
    """Write a part of a line whose runs share their first ``depth`` marks; ``opened`` are the tags around it."""
    pieces = []
    for mark, group in itertools.groupby(runs, lambda run: run.marks[depth] if depth < len(run.marks) else None):
        inside = list(group)
        match mark:
            case None:
                pieces += [dialect.escape(run.markdown if dialect.markdown else run.text) for run in inside]
            case Mark(Style.CODE):
                pieces.append(write_code_span("".join(run.text for run in inside), dialect))
            case Mark(Style.LINK, url):
                label = write_span(inside, dialect, depth + 1, opened)
                pieces.append(dialect.link(label, url))
            case Mark(style):
                before, after = dialect.marks.get(style, ("", ""))
                before, after = ("", "") if before in opened else (before, after)
                text = write_span(inside, dialect, depth + 1, opened | {before})
                pieces.append(f"{before}{text}{after}" if text else "")
    return "".join(pieces)


def write_code_span(code: str, dialect: Dialect) -> str:
    """Write code inside of a line."""
    before, after = dialect.marks.get(Style.CODE, ("", ""))
    if dialect.html:
        return f"{before}{escape_html(code)}{after}" if code else ""
    if dialect.markdown and "`" in code:
        fence = next("`" * length for length in itertools.count(1) if not re.search(f"(?<!`){'`' * length}(?!`)", code))
        pad = " " if code[0] == "`" or code[-1] == "`" else ""
        return f"{fence}{pad}{code}{pad}{fence}"
    return f"{before}{code}{after}"
