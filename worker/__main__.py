"""``python -m worker``: a host of workers with no HTTP in, for several hosts on one database."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # as `python -m gateway` does: the user's folder called `shared` is not ours. No module of ours can do this for
        # both, for it would have to be found before it is done
        sys.path.append(sys.path.pop(0))
    from worker.serve import main

    sys.exit(main())
