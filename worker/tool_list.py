"""``python -m worker.tool_list MODULE…``: print what a model is told of the tools, as a JSON array."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from shared.errors import SettingsError
from worker.tools.toolbox import Toolbox


def main(modules: Sequence[str]) -> int:
    """Print the built-in tools and those of the modules, and return the exit status."""
    try:
        toolbox = Toolbox(modules)
    except SettingsError as error:
        sys.stderr.write(f"gatehouse: {error}\n")
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(toolbox.specs()) + b"\n")
    toolbox.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
