"""Tools whose behaviour lies on disk, so that a test can change it between two turns."""

from __future__ import annotations

import os
from pathlib import Path

from worker.tools import tool


@tool
def die_while(path: str) -> str:
    """End the whole worker at once for as long as this file exists."""
    if Path(path).exists():
        os._exit(7)
    return "alive"
