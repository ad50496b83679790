"""``python -m gateway``: runs the gateway, or one of the commands of ``gateway.cli``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python puts the working directory first, and a folder of the user's may be called `shared` or `worker`
        sys.path.append(sys.path.pop(0))
    from gateway.cli.main import main

    sys.exit(main(sys.argv[1:]))
