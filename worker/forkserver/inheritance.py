"""What programs and forks that tools start inherit of a worker: three descriptors, and signals as they are anywhere.

The channel would let them read other sessions' messages and forge a turn's end, and a worker's way with signals would
keep ``Process.terminate`` and the pools of multiprocessing from ending their children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence

#: where the system lists the open descriptors of the process that asks
DESCRIPTORS = ("/proc/self/fd", "/dev/fd")
STANDARD = 3
#: signals a worker takes its own way
OWN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def let_programs_inherit_nothing() -> None:
    """Have every open descriptor but the standard three closed in programs; what Python opens later is anyway."""
    for folder in DESCRIPTORS:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208 - the names are all that is wanted
                if int(name) >= STANDARD:
                    with contextlib.suppress(OSError):
                        os.set_inheritable(int(name), False)
            return


def let_forks_be_their_own(descriptors: Sequence[int]) -> None:
    """Have forks of this process end by signals, and have these descriptors lead nowhere in them.

    A signal that comes in between waits: taken the worker's way, the first ``terminate`` of a new child would be lost.
    """
    forking = threading.local()

    def before_fork() -> None:
        forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, OWN_SIGNALS)

    def after_fork_in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, forking.mask)

    def after_fork_in_child() -> None:
        signal.set_wakeup_fd(-1)  # a signal of the child is none of the worker's loop
        for signum in OWN_SIGNALS:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, forking.mask)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in descriptors:
            os.dup2(nowhere, descriptor, inheritable=False)  # the number stays taken: objects here still hold it
        os.close(nowhere)
        let_programs_inherit_nothing()  # uvloop marks a program's pipes so, beside giving them to it

    os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
