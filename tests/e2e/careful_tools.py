"""Tools that leave a trace of every run, for turns that are cut off in the middle of a step."""

from __future__ import annotations

import asyncio
from pathlib import Path

from worker.tools import ToolContext, tool


@tool
async def write_down(path: str, context: ToolContext) -> str:
    """Append the call's idempotency key to a file."""
    append(path, context)
    return f"wrote {Path(path).name}"


@tool
async def write_down_slowly(path: str, seconds: float, context: ToolContext) -> str:
    """Append the call's idempotency key to a file, then take a while."""
    append(path, context)
    await asyncio.sleep(seconds)
    return f"wrote {Path(path).name} at last"


@tool
async def send_report(title: str, text: str, context: ToolContext) -> str:
    """Send a file to the chat."""
    context.send_file(text.encode(), title)
    return f"gave {title}"


@tool(retry_safe=False)
async def pay(path: str, seconds: float, context: ToolContext) -> str:
    """Append the call's idempotency key to a file, then take a while; must never run twice."""
    append(path, context)
    await asyncio.sleep(seconds)
    return "paid"


def append(path: str, context: ToolContext) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(context.idempotency_key + "\n")
