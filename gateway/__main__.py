"""``python -m gateway``: runs the gateway, or one of the commands of ``cli.py``."""

from __future__ import annotations

import sys

from gateway.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
