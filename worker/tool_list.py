"""``python -m worker.tool_list [--fetch HOST]… MODULE…``: print what a model is told of the tools, as a JSON array."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec

from shared.errors import SettingsError
from worker.tools.toolbox import Toolbox


def main(arguments: Sequence[str]) -> int:
    """Print the built-in tools and those of the modules, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.tool_list")
    parser.add_argument("--fetch", action="append", default=[], metavar="HOST", help="a host that may be fetched")
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    given = parser.parse_args(arguments)
    try:
        toolbox = Toolbox(given.modules, fetch_allow=given.fetch)
    except SettingsError as error:
        sys.stderr.write(f"gatehouse: {error}\n")
        return 1
    for name in toolbox.undescribed:
        sys.stderr.write(f"gatehouse: warning: GATEHOUSE_TOOLS: the model reads nothing of {name!r} but its name; ")
        sys.stderr.write("write a docstring\n")
    sys.stdout.buffer.write(msgspec.json.encode(toolbox.specs()) + b"\n")
    toolbox.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
