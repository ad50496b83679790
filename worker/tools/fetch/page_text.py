"""HTML as text: headings, lists, tables and links as Markdown has them; scripts and styles dropped.

One pass from left to right that never looks back, for the page is a stranger's: Python 3.11's own parser takes 20 s for
40 KB of ``<a ``, and four times that for twice as much. This one's time is in proportion to the page, and it yields as
it goes.
"""

from __future__ import annotations

import asyncio
import html
import re
import time
from urllib.parse import urljoin, urlsplit

#: seconds of work between two looks at the loop, and characters of text read at once
SLICE_S, PIECE_CHARS = 0.005, 16 * 1024
#: characters of text after which the rest of a page is left out, and of a link that is kept
TEXT_LIMIT_CHARS, LINK_LIMIT_CHARS = 2 * 1024 * 1024, 500
#: attributes of a tag that are read
ATTRIBUTE_LIMIT = 100
READ_ATTRIBUTES = frozenset({"href", "alt"})
#: elements whose text is not part of the page, and whose own markup is not read
RAW = frozenset({"script", "style", "textarea", "title", "noscript", "iframe", "noembed", "noframes", "xmp"})
#: elements that are dropped with all that is inside
DROPPED = frozenset({"svg", "template", "select", "object", "canvas", "math"})
BLOCKS = frozenset(
    "address article aside blockquote body dd details dialog div dl dt fieldset figcaption figure footer form h1 h2 h3 "
    "h4 h5 h6 header hr li main nav ol p pre section summary table tbody tfoot thead tr ul".split()
)
ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]{1,31});?")
#: characters of the longest entity of a character's number
NUMBER_CHARS = 12
NAME = re.compile(r"/?[A-Za-z][^\s/>]{0,30}")
ATTRIBUTE = re.compile(r"[\s/]*([^\s=>/]+)(?:\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>]*))?")
SPACES = re.compile(r"\s+")
#: what stands before and behind text that is kept as it was laid out
FENCE = "```\n"


async def page_text(source: str, url: str) -> str:
    """Return the text of an HTML page, its title first and its links absolute."""
    page = _Page(source, url)
    until = time.monotonic() + SLICE_S
    while page.step():
        if time.monotonic() > until:
            await asyncio.sleep(0)
            until = time.monotonic() + SLICE_S
    return page.text()


class _Page:
    """A page that is being read: ``_at`` is how far, ``_out`` what came of it."""

    def __init__(self, source: str, url: str) -> None:
        self._source = source
        self._lower = source.lower() if len(source.lower()) == len(source) else source
        self._base = url
        self._at = 0
        self._out: list[str] = []
        self._length = 0
        self._title = ""
        self._dropped: list[str] = []
        self._preformatted = 0
        self._link: tuple[str, int] | None = None

    def step(self) -> bool:
        """Read a piece of text or a tag; False at the end of the page."""
        if self._at >= len(self._source):
            return False
        opens = self._source.find("<", self._at)
        end = len(self._source) if opens < 0 else opens
        if self._at < end:
            self._text(min(end, self._at + PIECE_CHARS))
        elif self._source.startswith("<!--", opens):
            self._skip_past("-->", opens + 2)
        elif self._source.startswith(("<!", "<?"), opens):
            self._skip_past(">", opens)
        elif name := NAME.match(self._source, opens + 1):
            self._tag(name)
        else:
            self._say("<")
            self._at += 1
        return self._length < TEXT_LIMIT_CHARS

    def text(self) -> str:
        """Return the text read so far."""
        self._end_link()
        lines = [line.rstrip(" ") for line in "".join(self._out).replace("\0", "").split("\n")]
        body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        return f"{self._title}\n\n{body}".strip() if self._title else body

    def _text(self, end: int) -> None:
        """Say the text up to here, or up to the entity that this would cut in two."""
        entity = self._source.rfind("&", max(self._at + 1, end - 40), end)
        if entity > 0 and end < len(self._source) and self._source[end] != "<":
            end = entity
        self._say(self._source[self._at : end])
        self._at = end

    def _skip_past(self, mark: str, begin: int) -> None:
        found = self._source.find(mark, begin)
        self._at = len(self._source) if found < 0 else found + len(mark)

    def _tag(self, found: re.Match[str]) -> None:
        name = found.group().lower()
        attributes = self._attributes(found.end())
        if name.startswith("/"):
            self._close(name[1:])
        elif name in RAW:
            self._raw(name)
        elif name in DROPPED:
            self._dropped += [] if self._source.endswith("/>", 0, self._at) else [name]
        elif not self._dropped:
            self._open(name, attributes)

    def _attributes(self, at: int) -> dict[str, str]:
        """Read a tag's attributes, and go behind it."""
        attributes: dict[str, str] = {}
        for _ in range(ATTRIBUTE_LIMIT):
            found = ATTRIBUTE.match(self._source, at)
            if found is None:
                break
            name, value = found.groups()
            if (name := name.lower()) in READ_ATTRIBUTES and value:
                attributes.setdefault(name, _unescape(value.strip("\"'")[:PIECE_CHARS]))
            at = found.end()
        self._skip_past(">", at)
        return attributes

    def _raw(self, name: str) -> None:
        """Go behind an element whose content is no markup; the title is kept."""
        begin = self._at
        end = self._lower.find(f"</{name}", begin)
        if name == "title" and not self._title and not self._dropped:
            title = self._source[begin : max(begin, end)][:PIECE_CHARS]
            self._title = SPACES.sub(" ", _unescape(title)).strip()
        if end < 0:
            self._at = len(self._source)
        else:
            self._skip_past(">", end)

    def _open(self, name: str, attributes: dict[str, str]) -> None:
        match name:
            case "a":
                self._end_link()
                self._link = (self._absolute(attributes.get("href", "")), len(self._out))
            case "base" if "href" in attributes:
                self._base = self._absolute(attributes["href"]) or self._base
            case "br":
                self._put("\n")
            case "img" if attributes.get("alt", "").strip():
                self._say(f"[image: {attributes['alt']}]")
            case "td" | "th":
                self._put("| " if not self._out or self._out[-1].endswith("\n") else " | ")
            case "pre":
                self._break(name)
                self._preformatted += 1
                self._put(FENCE)
            case _ if name in BLOCKS:
                self._break(name)

    def _close(self, name: str) -> None:
        if self._dropped:
            if name == self._dropped[-1]:
                self._dropped.pop()
            return
        if name == "a":
            self._end_link()
        elif name == "pre" and self._preformatted:
            self._preformatted -= 1
            self._end_line()
            self._put(FENCE)
        if name in BLOCKS:
            self._break("")

    def _break(self, name: str) -> None:
        """Begin a new block."""
        self._end_line()
        match name:
            case "li":
                self._put("- ")
            case "h1" | "h2" | "h3" | "h4" | "h5" | "h6":
                self._put(f"\n{'#' * int(name[1])} ")
            case "tr" | "dt" | "dd" | "div" | "":
                pass
            case "hr":
                self._put("\n---\n\n")
            case _:
                self._put("\n")

    def _end_line(self) -> None:
        if self._out and not self._out[-1].endswith("\n"):
            self._put("\n")

    def _say(self, text: str) -> None:
        if self._dropped or not text:
            return
        text = _unescape(text)
        if self._preformatted:
            text = text.removeprefix("\n") if self._out[-1] == FENCE else text
        else:
            text = SPACES.sub(" ", text)
            if text[0] == " " and self._out and self._out[-1][-1:] in {" ", "\n"}:
                text = text[1:]
        if text:
            self._put(text)

    def _put(self, text: str) -> None:
        self._out.append(text)
        self._length += len(text)

    def _end_link(self) -> None:
        """Write the link whose text was said, if it leads anywhere."""
        if self._link is None:
            return
        (target, begin), self._link = self._link, None
        said = SPACES.sub(" ", "".join(self._out[begin:]))
        if target and (text := said.strip()):
            del self._out[begin:]
            self._put(f"{said[: said[0] == ' ']}[{text}]({target}){said[len(said) - (said[-1] == ' ') :]}")

    def _absolute(self, href: str) -> str:
        """Return where a link leads, empty for what is no page: a place on this one, a script."""
        href = href.strip()
        if not href or href.startswith("#") or len(href) > LINK_LIMIT_CHARS:
            return ""
        try:
            target = urljoin(self._base, href)
            wanted = urlsplit(target).scheme in {"http", "https", "mailto"} and len(target) <= LINK_LIMIT_CHARS
        except ValueError:
            return ""
        return target if wanted else ""


def _unescape(text: str) -> str:
    return ENTITY.sub(_character, text) if "&" in text else text


def _character(found: re.Match[str]) -> str:
    entity = found.group()
    # a number that no character has, of any length: converting it could take for ever
    return entity if entity[1] == "#" and len(entity) > NUMBER_CHARS else html.unescape(entity)
