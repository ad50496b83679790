"""What connections to MCP servers over HTTP verify their peers with."""

from __future__ import annotations

import functools
import ssl

import httpx2


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return the one of this process: making one takes as long as a hundred messages."""
    return httpx2.create_ssl_context()
