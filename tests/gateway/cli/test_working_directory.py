"""Folders of the user's that are called as our packages or Python's modules break nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess
from tests.e2e.command_line import port_of, run_command

TOOL = '''
import os
import subprocess
import sys

from worker.tools import tool

@tool
def beside() -> str:
    """Run a program that imports what lies beside it."""
    script = os.path.join(os.path.dirname(__file__), "scripts", "program.py")
    return subprocess.run([sys.executable, script], capture_output=True, text=True).stdout
'''


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("shared", "worker", "loadtests", "starlette"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the package of the user was imported')\n")
    (tmp_path / "random.py").write_text("raise RuntimeError('the module of the user was imported')\n")
    (tmp_path / "mybot.py").write_text(TOOL)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "program.py").write_text("import neighbour; print(neighbour.WORD)\n")
    (tmp_path / "scripts" / "neighbour.py").write_text("WORD = 'found it'\n")
    return tmp_path


def test_a_gateway_runs_where_folders_have_the_names_of_its_packages(directory: Path) -> None:
    settings = {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0", "GATEHOUSE_TOOLS": "mybot"}
    with GatewayProcess(directory, settings) as gateway:
        body = {"model": "gatehouse", "messages": [{"role": "user", "content": "beside"}]}
        with httpx2.Client(base_url=gateway.url, timeout=30, trust_env=False) as web:
            answer = web.post("/v1/chat/completions", json=body, headers={"X-Gatehouse-Session": "here"})
        assert answer.status_code == 200, answer.text
        assert not gateway.events("worker_failed_to_start")
        exported = run_command(directory, "export", "api:default:here", port=port_of(gateway), **settings)
        assert (exported.returncode, "beside" in exported.stdout) == (0, True), exported.stderr
        assert "found it" in answer.text


def test_the_console_script_is_the_same_program_and_finds_the_users_tools(directory: Path) -> None:
    (directory / "gateway").mkdir()
    (directory / "gateway" / "__init__.py").write_text("raise RuntimeError('the package of the user was imported')\n")
    script = Path(sys.executable).parent / "gatehouse"
    ended = subprocess.run(
        [script, "check"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "GATEHOUSE_DATA_DIR": str(directory), "PORT": "0", "GATEHOUSE_TOOLS": "mybot"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, "tools: mybot" in ended.stdout) == (0, True), ended.stderr
