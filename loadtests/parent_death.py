"""Has a process under test end with the one that started it, also where that is killed and can end nothing itself."""

from __future__ import annotations

import shutil
import sys
import threading


def ends_with_parent() -> tuple[str, ...]:
    """Return what goes before a command, so that its process is killed when this one ends; nothing outside of Linux.

    The system watches the thread that starts it: only the main thread is known to live as long as its process, and for
    any other nothing is returned.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return ()
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
