"""The fork server's preload: the one module whose import acts.

It imports all that a worker needs, builds the TLS context, and freezes what was made, so that a worker forked from
it is ready in milliseconds and shares its memory. It makes the fork server deaf to SIGTERM, SIGINT and SIGHUP, which
a supervisor or a terminal sends to a whole process group: workers are ended by their pool alone. It starts no thread:
a fork would copy the thread's locks without the thread. ``WARMED_BY`` is the process that did it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal

import httpx2

for _signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(_signum, signal.SIG_IGN)

# with these come the SDKs, their aiohttp transport, uvloop, msgspec and cachetools
for _name in ("child", "models.anthropic", "models.offline", "models.openai"):
    importlib.import_module(f"worker.agent.{_name}")

#: what every model client verifies servers with; making one takes longer than starting a worker
TLS_CONTEXT = httpx2.create_ssl_context()

WARMED_BY = os.getpid()

gc.collect()
gc.freeze()
