"""Markdown as a model writes it, into what a platform shows: Telegram's HTML, Slack's Markdown and plain text.

Every function is total: any text gives well-formed output, in time linear in its length.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import NamedTuple

FENCE = re.compile(r" {0,3}(`{3,}+|~{3,}+)[ \t]*+([\w+#.-]*+)[^`]*+")
HEADING = re.compile(r"#{1,6}[ \t]+(.*)")
BULLET = re.compile(r"(\s*)[-*+]\s+(.*)")
QUOTE = re.compile(r" {0,3}>\s?(.*)")
TABLE = re.compile(r"[ \t]*+\|.*")

#: what a line is made of; the quantifiers are possessive where a hostile text could make them try again and again
INLINE = re.compile(
    r"(?P<escaped>\\[\\`*_{}\[\]()#+\-.!~|>])"
    r"|(?<!`)(?P<code>(?P<ticks>`++)(?P<verbatim>[^\n]+?)(?<!`)(?P=ticks)(?!`))"
    r"|\[(?P<label>[^\[\]\n]{1,500}+)\]"
    r"\((?P<url>(?:https?://|mailto:|tg://)[^\s()<>\"]++(?:\([^\s()<>\"]*+\)[^\s()<>\"]*+)*+)\)"
    r"|(?P<bare>https?://[^\s<>]++)"
    r"|(?P<mark>\*\*\*|\*\*|__|~~|\*|_)"
)
TAGS = {
    "***": ("<b><i>", "</i></b>"),
    "**": ("<b>", "</b>"),
    "__": ("<b>", "</b>"),
    "~~": ("<s>", "</s>"),
    "*": ("<i>", "</i>"),
    "_": ("<i>", "</i>"),
}

#: what rings everybody, a group, or somebody
RINGING = re.compile(r"<(?=!(?:channel|here|everyone|group|subteam)|@[A-Z0-9])")


def hush_slack(markdown: str) -> str:
    """Break Slack's tokens that ring people, by a character that is not seen."""
    return RINGING.sub("<\N{ZERO WIDTH SPACE}", markdown)


def escape_slack(text: str) -> str:
    """Escape the three characters that mean something in Slack's ``text``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def telegram_html(markdown: str) -> str:
    """Turn Markdown into the HTML subset that Telegram reads; its visible text is never longer than the Markdown."""
    blocks: list[str] = []
    lines = markdown.split("\n")
    at = 0
    while at < len(lines):
        block, at = read_block(lines, at)
        blocks.append(block)
    return "\n".join(blocks)


def read_block(lines: list[str], at: int) -> tuple[str, int]:
    """Render the block that begins at a line; return it and the line after it."""
    line = lines[at]
    if fence := FENCE.fullmatch(line):
        return read_fence(lines, at, fence[1], fence[2])
    if QUOTE.fullmatch(line):
        inner, end = read_while(lines, at, QUOTE.fullmatch)
        return f"<blockquote>{chr(10).join(inline(match[1]) for match in inner)}</blockquote>", end
    if TABLE.fullmatch(line) and at + 1 < len(lines) and TABLE.fullmatch(lines[at + 1]):
        rows, end = read_while(lines, at, TABLE.fullmatch)
        return f"<pre>{chr(10).join(escape(row[0]) for row in rows)}</pre>", end
    if heading := HEADING.fullmatch(line):
        return f"<b>{inline(heading[1].strip().rstrip('#').rstrip())}</b>", at + 1
    if bullet := BULLET.fullmatch(line):
        return f"{bullet[1]}• {inline(bullet[2])}", at + 1
    return inline(line), at + 1


def read_fence(lines: list[str], at: int, mark: str, language: str) -> tuple[str, int]:
    """Render a code block; without an end it takes all that follows."""
    end = at + 1
    while end < len(lines) and not (lines[end].strip().startswith(mark) and not lines[end].strip(mark[0] + " \t")):
        end += 1
    code = escape("\n".join(lines[at + 1 : end]))
    if language:
        return f'<pre><code class="language-{escape(language)}">{code}</code></pre>', end + 1
    return f"<pre>{code}</pre>", end + 1


def read_while(
    lines: list[str], at: int, matches: Callable[[str], re.Match[str] | None]
) -> tuple[list[re.Match[str]], int]:
    """Return the matches of consecutive lines and the line after them."""
    found = []
    while at < len(lines) and (match := matches(lines[at])):
        found.append(match)
        at += 1
    return found, at


class Mark(NamedTuple):
    """An emphasis mark that may open: which, where its text begins, and its place among the pieces."""

    mark: str
    end: int
    piece: int


def inline(text: str) -> str:
    """Render emphasis, code and links of one line; marks without a partner stay as they are.

    Tags nest properly because a closing mark ends all marks that were opened after its partner.
    """
    pieces: list[str] = []
    opened: list[Mark] = []
    at = 0
    for found in INLINE.finditer(text):
        pieces.append(escape(text[at : found.start()]))
        at = found.end()
        if found["mark"]:
            place_mark(text, found, pieces, opened)
        else:
            pieces.append(render_atom(found))
    pieces.append(escape(text[at:]))
    return "".join(pieces)


def place_mark(text: str, found: re.Match[str], pieces: list[str], opened: list[Mark]) -> None:
    """Close the mark's partner if it can, else remember it as an opening if it can; else it is text."""
    mark = found["mark"]
    before = text[found.start() - 1] if found.start() else " "
    after = text[found.end()] if found.end() < len(text) else " "
    in_word = mark[0] == "_" and before.isalnum() and after.isalnum()
    partner = next((index for index, known in enumerate(opened) if known.mark == mark), None)
    if partner is None:
        if not after.isspace() and not in_word:
            opened.append(Mark(mark, found.end(), len(pieces)))
        pieces.append(mark)
    elif before.isspace() or in_word or opened[partner].end == found.start():
        pieces.append(mark)
    else:
        pieces[opened[partner].piece], closing = TAGS[mark]
        pieces.append(closing)
        del opened[partner:]


def render_atom(found: re.Match[str]) -> str:
    """Render what holds no further marks: an escaped character, code, or a link."""
    if found["escaped"]:
        return escape(found["escaped"][1:])
    if found["code"]:
        return f"<code>{escape(found['verbatim'].strip() or found['verbatim'])}</code>"
    if found["label"]:
        return f'<a href="{html.escape(found["url"])}">{escape(found["label"])}</a>'
    return escape(found["bare"])


def escape(text: str) -> str:
    """Escape the three characters that mean something in HTML text."""
    return html.escape(text, quote=False)
