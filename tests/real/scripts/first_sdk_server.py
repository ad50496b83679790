"""A server made with the first version of the mcp package: first_sdk_server.py TRANSPORT PORT."""

import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

server = FastMCP("first", host="127.0.0.1", port=int(sys.argv[2]))


class Name(BaseModel):
    name: str


@server.tool()
async def ask_back(context: Context) -> str:
    """Ask the client for all that a client may be asked for; say what it refuses."""
    asked = {
        "ping": context.session.send_ping(),
        "elicitation": context.elicit("Your name?", Name),
        "sampling": context.session.create_message(
            [SamplingMessage(role="user", content=TextContent(type="text", text="hi"))], max_tokens=5
        ),
        "roots": context.session.list_roots(),
    }
    told = []
    for what, answer in asked.items():
        try:
            await answer
            told.append(f"{what} answered")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said
            told.append(f"{what} refused: {error}")
    return "; ".join(told)


@server.tool()
def large(size: int) -> str:
    """Say much."""
    return "x" * size


server.run(transport=sys.argv[1])
