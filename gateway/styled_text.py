"""Markdown as a model writes it, read into styled text: runs of visible characters, each with the styles it has.

A run is what every platform's dialect is written from and what long answers are cut in: marks are closed at a cut and
opened again after it, so no cut breaks one. Markdown is read by markdown-it-py, which finds code in lists, quotes and
tables as CommonMark has it. Code blocks and tables stand on their own, outside of lists and quotes: few chat platforms
show them inside, and none shows code there unchanged. Every function is total: any text gives runs.
"""

from __future__ import annotations

import bisect
import enum
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, fence, paragraph
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

#: blocks nested deeper than this are shown as they are written
MOST_NESTING = 100

#: a url that stands in a text by itself; marks at its end belong to the text around it
BARE_URL = re.compile(r"://[^\s<>*`\[\]~]+(?<![_.,:;!?])")


#: what stands before a table's row inside of lists and quotes
TABLE_PLACE = re.compile(r"^[ \t>]*(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]+)*")
CELL_PART = re.compile(r"\\\||`[^`]+`|\||[^|`\\]+|.")

#: lines with marks of code that one paragraph is looked through for the beginning of a code block
MOST_LOOKED_AT = 100

#: a line that begins a code block
FENCE = re.compile(r"[ \t]*(?:`{3,}[^`]*|~{3,}.*)")


class Style(enum.StrEnum):
    """What a run of text can be."""

    BOLD = "bold"
    ITALIC = "italic"
    STRIKE = "strike"
    CODE = "code"
    HEADING = "heading"
    LINK = "link"  #: ``detail`` is its url
    QUOTE = "quote"  #: ``detail`` tells two quotes apart that follow each other
    BLOCK = "block"  #: a code block; ``detail`` is its language
    TABLE = "table"


class Mark(NamedTuple):
    """One style of a run."""

    style: Style
    detail: str = ""


class Run(NamedTuple):
    """Visible text in one style, and its Markdown where that is written otherwise."""

    text: str
    marks: tuple[Mark, ...] = ()
    source: str | None = None

    @property
    def markdown(self) -> str:
        """The text as Markdown has it, without its marks."""
        return self.text if self.source is None else self.source

    def has(self, *styles: Style) -> bool:
        """Tell whether the run has one of these styles."""
        return any(mark.style in styles for mark in self.marks)


def read_markdown(markdown: str) -> list[Run]:
    """Read a text into runs. Time is linear in its length but for some hostile texts, see MarkdownIt."""
    tokens = PARSER.parse(markdown.replace("\0", "\N{REPLACEMENT CHARACTER}"))
    if max((token.level for token in tokens), default=0) >= MOST_NESTING - 1:
        return [Run(markdown)]
    reader = _BlockReader(markdown.split("\n"))
    for token in tokens:
        reader.read(token)
    return [run for run in reader.runs if run.text or run.source]


def visible(runs: Iterable[Run]) -> str:
    """Return what a reader sees of runs, marks aside."""
    return "".join(run.text for run in runs)


class _List(NamedTuple):
    """An open list: where its items begin, and how wide their marks are."""

    indent: str
    width: int


class _BlockReader:
    """Turns the tokens of blocks into runs, in order."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self.runs: list[Run] = []
        self._quotes: list[str] = []
        self._quoted = 0
        self._lists: list[_List] = []
        self._bullet: Run | None = None
        self._end = 0  #: the line after the last block
        self._shift = 0  #: how many blanks of a list's indent are left out of its Markdown, after code in it
        self._last: tuple[Mark, ...] = ()
        self._in_table = False
        self._heading = ""

    def read(self, token: Token) -> None:
        """Take the next token in."""
        match token.type:
            case "blockquote_open":
                self._quoted += 1
                self._quotes.append(str(self._quoted))
            case "blockquote_close":
                self._quotes.pop()
            case "bullet_list_open" | "ordered_list_open":
                self._lists.append(_List(self._indent(), 2))
            case "bullet_list_close" | "ordered_list_close":
                self._lists.pop()
            case "list_item_open":
                self._open_item(token)
            case "list_item_close" if self._bullet:
                self._open_leaf((self._end, self._end), self._marks())
            case "heading_open":
                self._heading = token.tag
            case "heading_close":
                self._heading = ""
            case "table_open":
                self._in_table = True
                self._read_table(token.map or (self._end, self._end))
            case "table_close":
                self._in_table = False
            case "inline" if self._in_table:
                pass
            case "inline" | "fence" | "code_block" | "hr":
                self._read_leaf(token, token.map or (self._end, self._end))

    def _read_leaf(self, token: Token, lines: Sequence[int]) -> None:
        match token.type:
            case "inline":
                self._open_leaf(lines, self._marks())
                self._read_inline(token)
            case "fence" | "code_block":
                mark = Mark(Style.BLOCK, token.info.strip().split(" ")[0] if token.info else "")
                self._stand_alone(lines, Run(token.content.removesuffix("\n"), (mark,)))
            case "hr":
                self._open_leaf(lines, self._marks())
                self.runs.append(Run("———", self._marks(), "---"))
        self._end = max(self._end, lines[1])

    def _read_table(self, lines: Sequence[int]) -> None:
        # its source and not its tokens: these lose the cells that a bar inside of code makes too many
        rows = [read_row(self._lines[line]) for line in range(lines[0], lines[1]) if line != lines[0] + 1]
        self._stand_alone(lines, Run(aligned(rows), (Mark(Style.TABLE),), piped(rows)))
        self._end = max(self._end, lines[1])

    def _stand_alone(self, lines: Sequence[int], run: Run) -> None:
        """Write code or a table, on lines of its own."""
        if self._bullet:
            self._open_leaf(lines, self._marks())
            self._end = max(self._end, lines[0])
        if run.text:
            self._gap(lines, ())
            self.runs.append(run)
            self._shift = len(self._indent())

    def _open_item(self, token: Token) -> None:
        outer = self._lists[-1]
        number = f"{token.info}{token.markup}" if token.info else ""
        self._lists[-1] = outer._replace(width=len(number or "-") + 1)
        self._shift = min(self._shift, len(outer.indent))
        source = f"{outer.indent[self._shift :]}{number or '-'} "
        self._bullet = Run(f"{outer.indent}{number or '•'} ", (), source)

    def _gap(self, lines: Sequence[int], marks: tuple[Mark, ...]) -> None:
        """Begin a block with the newlines before it."""
        if self.runs:
            gap = "\n" if lines[0] <= self._end else "\n\n"
            self.runs.append(Run(gap, marks if marks == self._last else ()))
        self._last = marks

    def _open_leaf(self, lines: Sequence[int], marks: tuple[Mark, ...]) -> None:
        """Begin a block of text: after the newlines its bullet, or its place in a list."""
        self._gap(lines, marks)
        if self._bullet:
            self.runs.append(self._bullet._replace(marks=marks))
            self._bullet = None
        elif indent := self._indent():
            self.runs.append(Run(indent, marks, indent[self._shift :]))

    def _indent(self) -> str:
        return self._lists[-1].indent + " " * self._lists[-1].width if self._lists else ""

    def _marks(self) -> tuple[Mark, ...]:
        return (Mark(Style.QUOTE, self._quotes[0]),) if self._quotes else ()

    def _read_inline(self, token: Token) -> None:
        marks = self._marks()
        if self._heading:
            self.runs.append(Run("", marks, "#" * min(int(self._heading[1:]), 3) + " "))
            marks = (*marks, Mark(Style.HEADING))
        self.runs += read_inline(token.children or [], marks, "\n" + self._indent())


def read_inline(tokens: Iterable[Token], marks: tuple[Mark, ...], newline: str) -> Iterable[Run]:
    """Turn the tokens of a paragraph into runs."""
    for token in tokens:
        match token.type:
            case "strong_open":
                marks = (*marks, Mark(Style.BOLD))
            case "em_open":
                marks = (*marks, Mark(Style.ITALIC))
            case "s_open":
                marks = (*marks, Mark(Style.STRIKE))
            case "link_open":
                marks = (*marks, Mark(Style.LINK, str(token.attrs.get("href", ""))))
            case "strong_close" | "em_close" | "s_close" | "link_close":
                marks = marks[:-1]
            case "softbreak" | "hardbreak":
                yield Run(newline, marks)
            case "code_inline":
                yield Run(token.content, (*marks, Mark(Style.CODE)))
            case "image":
                url = str(token.attrs.get("src", ""))
                yield Run(token.content or url, (*marks, Mark(Style.LINK, url)))
            case "text_special":
                yield Run(token.content, marks, token.markup)
            case _:
                yield Run(token.content, marks)


def read_row(line: str) -> list[str]:
    """Read the cells of a table's row; a bar inside of code belongs to it."""
    cells = [""]
    for found in CELL_PART.finditer(TABLE_PLACE.sub("", line, count=1).strip()):
        if found[0] == "|":
            cells.append("")
        else:
            cells[-1] += found[0].replace(r"\|", "|")
    inner = [cell.strip() for cell in cells]
    return inner[not inner[0] : len(inner) - (not inner[-1])] or [""]


def piped(rows: Sequence[Sequence[str]]) -> str:
    """Write a table as Markdown has it."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines[:1], "|" + "---|" * len(rows[0]), *lines[1:]]) if rows else ""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Write a table for a font whose characters are all equally wide."""
    columns = list(itertools.zip_longest(*rows, fillvalue=""))
    widths = [max(map(len, column)) for column in columns]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join([*lines[:1], "-+-".join("-" * width for width in widths), *lines[1:]])


def _keep_url(state: StateInline, silent: bool) -> bool:
    """Take a bare url as it is: what looks like marks inside is part of it."""
    found = BARE_URL.match(state.src, state.pos, state.posMax)
    if not found or not state.src.endswith(("http", "https"), 0, state.pos):
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True


def _fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Read a code block that is indented further than CommonMark has it, as models write them in lists."""
    line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    if not FENCE.fullmatch(line):
        return False
    outer = state.blkIndent
    state.blkIndent = max(outer, state.sCount[start] - 3)
    try:
        return fence(state, start, end, silent)
    finally:
        state.blkIndent = outer


def _paragraph(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Read a paragraph up to a code block, however far that is indented."""
    last = state.lineMax
    fences = _possible_fences(state)
    first = bisect.bisect_right(fences, start)
    for line in fences[first : first + MOST_LOOKED_AT]:
        if FENCE.fullmatch(state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]):
            state.lineMax = min(line, last)
            break
    try:
        return paragraph(state, start, end, silent)
    finally:
        state.lineMax = last


def _possible_fences(state: StateBlock) -> list[int]:
    """Return the lines of the whole text in which a code block may begin, found once: paragraphs are many."""
    found = state.env.get("fences")
    if not isinstance(found, list):
        found = [number for number, line in enumerate(state.src.split("\n")) if "```" in line or "~~~" in line]
        state.env["fences"] = found
    return found


def _make_parser() -> MarkdownIt:
    """Return a reader of CommonMark with tables and strikethrough; nothing is HTML, and no line is hidden."""
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": MOST_NESTING})
    parser.enable(["table", "strikethrough"]).disable(["text_join", "reference", "lheading"])
    parser.block.ruler.before("code", "indented_fence", _fence)
    parser.block.ruler.at("paragraph", _paragraph)
    parser.inline.ruler.before("escape", "bare_url", _keep_url)
    return parser


PARSER = _make_parser()
