"""The fork server's first preload: it makes it deaf to signals that are sent to a whole process group.

A supervisor or a terminal sends SIGTERM, SIGINT and SIGHUP to all of a group; workers are ended by their pool alone,
and they inherit this. It comes before the SDKs, whose import takes seconds in which a signal may come.
"""

from __future__ import annotations

import signal

for _signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(_signum, signal.SIG_IGN)
