"""One run of a server that all sessions of a worker share."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.events import Emit
from worker.mcp_server import McpServer, McpStatus
from worker.tools.context import ToolContext
from worker.tools.mcp.connection import McpConnection
from worker.tools.mcp.listing import Offer, ServerTools, Shelf


class SharedRun:
    """Keeps one connection for the worker's life."""

    def __init__(self, server: McpServer, shelf: Shelf, emit: Emit) -> None:
        self._connection = McpConnection(server, ServerTools(server, shelf, emit, self._call), emit)
        self.tried = self._connection.tried
        self.tasks = [asyncio.create_task(self._connection.run(), name=f"mcp {server.name}")]

    @property
    def status(self) -> McpStatus:
        """How the server is."""
        return self._connection.status

    def forget(self, session: str) -> None:
        """Do nothing: it is no session's own."""

    async def _call(self, offer: Offer, arguments: dict[str, Any], context: ToolContext) -> str:
        return await self._connection.call(offer, arguments, context)

    def stop(self) -> None:
        """Begin to disconnect."""
        self._connection.closing()
        for task in self.tasks:
            task.cancel()
