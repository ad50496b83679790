"""The gateway's commands, as an operator runs them beside a gateway under test or over its database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.gateway_process import ROOT, GatewayProcess


def run_command(data_dir: Path, *arguments: str, port: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m gateway ...``; with port 0 no running gateway is asked."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        check=False,
        cwd=data_dir,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "GATEHOUSE_DATA_DIR": str(data_dir),
            "PORT": str(port),
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def port_of(gateway: GatewayProcess) -> int:
    """Return the port a gateway listens on."""
    port = urlsplit(gateway.url).port
    assert port is not None
    return port
