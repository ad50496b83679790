"""Whether the modules of ``GATEHOUSE_TOOLS`` can be loaded, found out before anything listens.

Agent code never runs in the gateway's process: a process of the worker's own loads them, and says what is wrong.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from gateway.own_module import own_module_command
from shared.errors import SettingsError

SETTING = "GATEHOUSE_TOOLS"
LOADED_WITHIN_S = 60.0
SAID = f"gatehouse: {SETTING}: "
WARNED = f"gatehouse: warning: {SETTING}: "


def check_tool_modules(
    modules: Sequence[str], within_s: float = LOADED_WITHIN_S, *, fetch_allow: Sequence[str] = ()
) -> tuple[str, ...]:
    """Load the modules once, in a process of its own, and return what it warns of.

    Raises SettingsError with what went wrong.
    """
    if not modules:
        return ()
    command = own_module_command("worker.tool_list", *(f"--fetch={host}" for host in fetch_allow), *modules)
    try:
        ended = subprocess.run(  # noqa: S603 - the settings name the modules
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise SettingsError(SETTING, f"loading {', '.join(modules)} takes more than {within_s:g} s") from None
    said = ended.stderr.decode("utf-8", "replace").splitlines()
    if ended.returncode:
        said = said or [f"it ended with status {ended.returncode}"]
        known = [line.removeprefix(SAID) for line in said if line.startswith(SAID)]
        raise SettingsError(SETTING, known[0] if known else f"{', '.join(modules)} cannot be loaded: {said[-1]}")
    return tuple(line.removeprefix(WARNED) for line in said if line.startswith(WARNED))
