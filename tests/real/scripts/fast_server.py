"""A server made with fastmcp: fast_server.py stdio, or fast_server.py http PORT."""

import asyncio
import base64
import sys
from dataclasses import dataclass

import mcp_types
from fastmcp import Context, FastMCP
from fastmcp.utilities.types import Audio, Image

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
server = FastMCP("fast")


@dataclass
class Point:
    x: int
    y: int


@server.tool
def point(x: int, y: int) -> Point:
    """Give a structured result, with an output schema."""
    return Point(x, y)


@server.tool
async def slow(context: Context) -> str:
    """Tell progress and log messages on the way."""
    for step in range(3):
        await context.report_progress(step, 3, f"step {step}")
        await context.info(f"step {step}")
        await asyncio.sleep(0.05)
    return "slow done"


@server.tool
async def elicit(context: Context) -> str:
    """Ask the user, which no client over a gateway can."""
    return f"told {await context.elicit('Your name?', response_type=str)}"


@server.tool
def media() -> list:
    """Give an image, a sound and a link to a resource."""
    link = mcp_types.ResourceLink(type="resource_link", uri="file:///a.txt", name="a")
    return [Image(data=base64.b64decode(PIXEL), format="png"), Audio(data=b"RIFF", format="wav"), link]


@server.tool
async def grow(context: Context) -> str:
    """Have one more tool from now on."""

    def born() -> str:
        """Be new."""
        return "born"

    server.tool(born)
    await context.send_notification(mcp_types.ToolListChangedNotification())
    return "grown"


if sys.argv[1] == "stdio":
    server.run(show_banner=False)
else:
    server.run(transport=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]), show_banner=False)
