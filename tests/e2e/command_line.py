"""The gateway's commands, as an operator runs them beside a gateway under test or over its database."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.cli.main import main
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


def run_inside(data_dir: Path, *arguments: str, port: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command as ``run_command`` does, but in this process, which takes a tenth of the time."""
    said, complained = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    environment = {"PATH": os.environ["PATH"], "GATEHOUSE_DATA_DIR": str(data_dir), "PORT": str(port), **settings}
    with pytest.MonkeyPatch.context() as patched, contextlib.chdir(data_dir):
        for name in os.environ.keys() - environment.keys():
            patched.delenv(name)
        for name, value in environment.items():
            patched.setenv(name, value)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            status = main(arguments)
    for stream in (said, complained):
        stream.seek(0)
    return subprocess.CompletedProcess(arguments, status, said.read(), complained.read())


def port_of(gateway: GatewayProcess) -> int:
    """Return the port a gateway listens on."""
    port = urlsplit(gateway.url).port
    assert port is not None
    return port
