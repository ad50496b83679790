"""``python -m gateway``: runs the gateway, or one of the commands of ``gateway.cli``."""

from __future__ import annotations

import sys

from gateway.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
