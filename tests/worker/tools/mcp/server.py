"""A real MCP server for tests, made with the mcp package's server side: over stdio, or HTTP with a port.

Run as ``python server.py [--port N] [--journal FILE] [--more FILE]``.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp_types import ImageContent, ToolAnnotations


def made(journal: Path | None) -> MCPServer:
    """Return the server; what becomes of its hung calls is written to the journal."""
    server = MCPServer("test")

    def note(word: str) -> None:
        if journal:
            journal.write_text(word)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise LookupError("nothing is here")

    @server.tool()
    async def hang() -> str:
        """Never answer."""
        note("begun")
        try:
            await asyncio.sleep(600)
        finally:
            note("cancelled")
        return "late"

    @server.tool(name="odd.name/here")
    def odd() -> str:
        """Have an odd name."""
        return "odd"

    @server.tool()
    def huge(size: int) -> str:
        """Say much."""
        return "x" * size

    @server.tool(structured_output=False)
    def picture() -> ImageContent:
        """Show a picture."""
        return ImageContent(type="image", data="AAAA", mime_type="image/png")

    return server


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--sse", action="store_true", help="speak the older transport")
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--more", type=Path, help="a file: while it exists there is one more tool")
    given = parser.parse_args()
    server = made(given.journal)
    if given.more and given.more.exists():
        server.add_tool(lambda: "more", name="more", description="Be more.")
    if given.port is None:
        server.run("stdio")
    elif given.sse:
        server.run("sse", host="127.0.0.1", port=given.port)
    else:
        server.run("streamable-http", host="127.0.0.1", port=given.port)


if __name__ == "__main__":
    main()
