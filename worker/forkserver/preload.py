"""The fork server's last preload: with ignore_signals and kill_orphans the only modules whose import acts.

It imports what every worker needs, builds the TLS context, and freezes what was made, so that a worker forked from
it is ready in milliseconds and shares its memory. The SDKs of the models in use were imported before it. It starts no
thread: a fork would copy the thread's locks without the thread. ``WARMED_BY`` is the process that did it.
"""

from __future__ import annotations

import gc
import os

import httpx2

import worker.agent.child
import worker.agent.models.offline
import worker.forkserver.bootstrap  # noqa: F401

#: what every model client verifies servers with; making one takes longer than starting a worker
TLS_CONTEXT = httpx2.create_ssl_context()

WARMED_BY = os.getpid()

gc.collect()
gc.freeze()
