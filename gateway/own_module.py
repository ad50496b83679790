"""How the gateway runs a module of the worker's side in a process of its own."""

from __future__ import annotations

import sys


def own_module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module as ``python -m`` does, found where this process finds its modules.

    ``python -m`` would look into the working directory first, where a folder of the user's may have the module's name.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; import runpy; runpy.run_module({module!r}, None, '__main__', True)"
    return [sys.executable, "-c", code, *arguments]
