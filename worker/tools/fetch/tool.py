"""What the model is told of ``fetch``, and what it reads of a page."""

from __future__ import annotations

from collections.abc import Sequence

from shared.allow_list import AllowList
from shared.errors import ToolError
from worker.tools.context import ToolContext
from worker.tools.declaration import Tool, ToolOptions
from worker.tools.fetch.fetcher import Fetcher, Lookup, Page, look_up
from worker.tools.fetch.page_text import page_text
from worker.tools.schema import Parameters
from worker.tools.spec import ToolSpec

#: characters of a page that one call returns
PART_CHARS = 20_000
#: a part in the longest letters there are, its url and the line that says how to read on
OUTPUT_LIMIT_BYTES = 4 * PART_CHARS + 16 * 1024
TIMEOUT_S = 30.0
HTML = frozenset({"text/html", "application/xhtml+xml"})


def fetch_tool(entries: Sequence[str], lookup: Lookup = look_up) -> Tool:
    """Return the tool for these entries of an AllowList."""
    fetcher = Fetcher(AllowList(entries), lookup)

    async def fetch(url: str, start: int = 0) -> str:
        return await read_page(fetcher, url, start)

    parameters = Parameters(fetch)

    async def run(arguments: str, context: ToolContext) -> object:
        return await fetch(**parameters.read(arguments, context))

    options = ToolOptions("fetch", timeout_s=TIMEOUT_S, output_limit_bytes=OUTPUT_LIMIT_BYTES)
    return Tool(ToolSpec("fetch", _description(entries), parameters.schema), options, run)


async def read_page(fetcher: Fetcher, url: str, start: int) -> str:
    """Return a part of a page as text, with a line that says how to read on. Raises ToolError."""
    page = await fetcher.get(url)
    text = await page_text(page.text, page.url) if page.media_type in HTML else page.text
    if start < 0 or (start and start >= len(text)):
        raise ToolError(f"start {start} is outside the page, which has {len(text)} characters")
    part = text[start : start + PART_CHARS]
    return f"{page.url}\n\n{part or '(the page has no text)'}{_rest(page, start + len(part), len(text))}"


def _rest(page: Page, end: int, length: int) -> str:
    if end < length:
        return f"\n\n[characters up to {end} of {length}; call again with start={end} to read on]"
    return "\n\n[the page is larger than what is read of it]" if page.cut else ""


def _description(entries: Sequence[str]) -> str:
    hosts = "any public host" if "*" in entries else ", ".join(entries)
    return (
        "Fetch a web page by its http or https url and return it as text with its links; no login, no scripts. "
        f"It can be of these hosts: {hosts}. start is the character to begin at, to read on in a long page."
    )
