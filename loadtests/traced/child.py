"""A worker that counts which of its functions run."""

from __future__ import annotations

import socket
from pathlib import Path

from loadtests.traced.counting import CallCounts
from worker.agent import child
from worker.shared_page import SharedPage


def run(sock: socket.socket, page: SharedPage) -> None:
    """Live as every worker does."""
    CallCounts(Path.cwd()).start()
    child.run(sock, page)
