"""The built-in tools that are always there: the todo list and the current time."""

from __future__ import annotations

import datetime
import zoneinfo

import msgspec

from shared.errors import ToolError
from worker.tools.context import ToolContext
from worker.tools.declaration import tool
from worker.tools.spec import ToolSpec

_TODO_DESCRIPTION = """\
Keep the todo list of this conversation. Without arguments it returns the list.
Use it for work of three steps or more, or when the user names several tasks or asks for a list.
Give the whole list to replace it, or merge=true to change some items by id and add new ones at the end.
Keep one item in_progress, and mark an item completed as soon as it is done. Always returns the whole list."""

_TODO_PARAMETERS = {
    "type": "object",
    "properties": {
        "todos": {
            "type": "array",
            "description": "The items to write; leave it out to read the list.",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "Names the item, unique in the list."},
                    "content": {"type": "string", "description": "What is to be done."},
                    "status": {"type": "string", "enum": ["pending", "in_progress", "completed", "cancelled"]},
                },
                "required": ["id", "content", "status"],
            },
        },
        "merge": {
            "type": "boolean",
            "description": "true changes items by id and adds new ones; false replaces the list.",
            "default": False,
        },
    },
    "required": [],
}


def todo_spec() -> ToolSpec:
    """Return what a model is told of the todo tool."""
    return ToolSpec("todo", _TODO_DESCRIPTION, _TODO_PARAMETERS)


async def run_todo(arguments: str, context: ToolContext) -> object:
    """Call the session's todo store, which itself answers wrong shapes with an error result. Raises ToolError."""
    try:
        given = msgspec.json.decode(arguments.strip() or "{}", type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ToolError(f"the arguments are not a JSON object: {error}") from None
    return context.todo.call(given)


@tool
async def current_time(timezone: str = "UTC") -> str:
    """Tell the current date and time.

    timezone is an IANA name such as Europe/Berlin.
    """
    try:
        zone = datetime.UTC if timezone.upper() == "UTC" else zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ToolError(f"there is no time zone named {timezone!r}") from None
    return datetime.datetime.now(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z (UTC%z)")
