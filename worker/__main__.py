"""``python -m worker``: a host of workers with no HTTP in, for clusters.

It shares a server's database with the gateways, so without one it has nothing to do: it says so and ends with status
78 (EX_CONFIG of sysexits.h), which process supervisors read as "do not start me again".
"""

from __future__ import annotations

import sys

from shared.errors import SettingsError
from shared.settings import load_settings

EX_CONFIG = 78
EXPLANATION = (
    "a worker host needs DATABASE_URL to name a database that many hosts share; without one `python -m gateway` "
    "runs its own workers, and there is nothing to do here"
)


def main() -> int:
    """Explain why there is nothing to do and return the exit status."""
    try:
        load_settings()
    except SettingsError as error:
        return complain(str(error), 2)
    return complain(EXPLANATION, EX_CONFIG)


def complain(line: str, status: int) -> int:
    """Write one line for the user to stderr and return the exit status."""
    sys.stderr.write(f"gatehouse: {line}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
