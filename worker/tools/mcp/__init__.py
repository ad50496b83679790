"""MCP servers, whose tools join the toolbox as ``server__tool``.

    McpServers ── one McpConnection a server ── stdio: a program in the worker's process group
                  (connect, list, serve,     └─ http:  the mcp package's streamable client
                   restart with backoff)

The servers belong to the worker, not to a turn: everything that talks to them runs in tasks of their own, and a call
only waits for its task. The mcp package is loaded when there is a server, and not otherwise.
"""

from worker.tools.mcp.servers import McpServers

__all__ = ["McpServers"]
