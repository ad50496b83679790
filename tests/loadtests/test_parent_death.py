"""What the tests start ends with them, also where they are killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from loadtests.gateway_process import ROOT
from tests.postgres_server import shared_server
from worker import os_processes

STARTER = """
import sys
import time
from pathlib import Path
from loadtests.gateway_process import GatewayProcess
from loadtests.postgres_server import PostgresServer
database = PostgresServer()
gateway = GatewayProcess(Path(sys.argv[1]), {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"})
gateway.launch()
gateway.wait_for("started")
print("started", flush=True)
time.sleep(600)
"""


def test_a_gateway_and_a_database_end_with_tests_that_are_killed(tmp_path: Path) -> None:
    shared_server()  # which says so where there is none
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        assert len(os_processes.children(starter.pid)) == 2
        pids = os_processes.descendants(starter.pid)
        starter.kill()
    until = time.monotonic() + 30
    while left := [pid for pid in pids if os_processes.alive(pid)]:
        assert time.monotonic() < until, f"{left} outlive the killed tests"
        time.sleep(0.02)
