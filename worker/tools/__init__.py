"""What users extend: ``from worker.tools import tool``.

A tool is a function with a docstring and typed parameters. Sync functions run in threads, async ones on the loop.
``docs/tools.md`` tells the rest.
"""

from shared.errors import ToolError
from worker.tools.context import ToolContext
from worker.tools.declaration import tool

__all__ = ["ToolContext", "ToolError", "tool"]
