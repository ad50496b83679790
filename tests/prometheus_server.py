"""Debian's Prometheus with the configuration and rules of docs/, for gateways that a test runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loadtests.gateway_process import ROOT

DIRECTORY = ROOT / "docs" / "prometheus"
RULES = DIRECTORY / "rules.yml"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None and not os.environ.get("CI"), reason="Debian's prometheus is not installed"
)


@contextmanager
def prometheus(
    directory: Path, *gateway_ports: int, rules: str | None = None, interval: str = "1s"
) -> Iterator[httpx2.Client]:
    """Run it for gateways on these ports, with these rules in place of those of docs/, each ``interval``."""
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in gateway_ports)
    config = (DIRECTORY / "prometheus.yml").read_text("utf-8").replace('"127.0.0.1:8000"', targets)
    assert targets in config
    (directory / "prometheus.yml").write_text(config.replace("15s", interval))
    (directory / "rules.yml").write_text(rules or RULES.read_text("utf-8"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def query(client: httpx2.Client, expression: str) -> list[dict[str, Any]]:
    """Return the rows of an instant query."""
    answer = client.get("/api/v1/query", params={"query": expression})
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def has_read(client: httpx2.Client, gateways: int = 1) -> bool:
    """Tell whether it has read so many gateways."""
    try:
        if client.get("/-/ready").status_code != 200:
            return False
        return [row["value"][1] for row in query(client, 'up{job="gatehouse"}')] == ["1"] * gateways
    except httpx2.TransportError:
        return False
