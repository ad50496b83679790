"""A real MCP server for tests, made with the mcp package's server side: over stdio, or HTTP with a port.

Run as ``python server.py [--port N] [--more] [--deaf] [--late SECONDS] [--noise]``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp_types import ImageContent, ToolAnnotations


def made(journal: Path | None) -> MCPServer:
    """Return the server; what becomes of its hung calls is written to the journal."""
    server = MCPServer("test")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    @server.tool()
    def who() -> dict[str, int]:
        """Tell the process and its group."""
        return {"pid": os.getpid(), "group": os.getpgrp(), "session": os.getsid(0)}

    @server.tool()
    def environment() -> list[str]:
        """Tell the names in the environment."""
        return sorted(os.environ)

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise LookupError("nothing is here")

    @server.tool()
    def die() -> str:
        """Die at once."""
        os.write(2, b"about to die\n")
        os._exit(3)

    @server.tool()
    async def hang() -> str:
        """Never answer."""
        try:
            await asyncio.sleep(600)
        finally:
            if journal:
                journal.write_text("cancelled")  # noqa: ASYNC240 - a line for the test to read
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
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--more", type=Path, help="a file: while it exists there is one more tool")
    parser.add_argument("--deaf", action="store_true", help="hear neither the end of the input nor SIGTERM")
    parser.add_argument("--late", type=float, default=0.0)
    parser.add_argument("--noise", action="store_true", help="write what is no message first")
    given = parser.parse_args()
    time.sleep(given.late)
    if given.noise:
        os.write(1, b"Hello, I am a server!\n\n{not json\n")
    server = made(given.journal)
    if given.more and given.more.exists():
        server.add_tool(lambda: "more", name="more", description="Be more.")
    if given.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
    if given.port is None:
        server.run("stdio")
        time.sleep(600 if given.deaf else 0)
    else:
        server.run("streamable-http", host="127.0.0.1", port=given.port)


if __name__ == "__main__":
    main()
