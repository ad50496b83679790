"""What a platform's Python buildpack does, in a clean environment: the tree that git has, pip, and the ``web`` line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import httpx2
import psutil

from loadtests.gateway_process import ROOT
from loadtests.program import free_port

KEY = "a-key-of-the-test"


def run(command: list[str], directory: Path) -> None:
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]


def test_what_a_buildpack_installs_runs_the_web_line(tmp_path: Path) -> None:
    """Another address of this machine is answered, as the platform's router is another machine."""
    tree, python = tmp_path / "app", tmp_path / "python"
    tree.mkdir()
    tracked = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=tree, input=tracked, check=True)
    assert (tree / ".python-version").read_text().strip() == ".".join(map(str, sys.version_info[:2]))
    venv.create(python, with_pip=True)
    run([str(python / "bin" / "python"), "-m", "pip", "install", "-q", "-r", "requirements.txt"], tree)

    types = dict(re.findall(r"^(\w+): (.+)$", (tree / "Procfile").read_text(), re.MULTILINE))
    port = free_port()
    environment = {
        "PATH": f"{python / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(tree),
        "PORT": str(port),
        "GATEHOUSE_API_KEYS": KEY,
        "GATEHOUSE_WORKERS": "1",
    }
    command = ["sh", "-c", types["web"]]
    with subprocess.Popen(command, cwd=tree, env=environment, start_new_session=True) as web:
        try:
            answer = ready(f"http://127.0.0.1:{port}", web)
            assert answer.status_code == 200
            addresses = {one.laddr.ip for one in psutil.Process(web.pid).net_connections() if one.status == "LISTEN"}
            assert addresses == {"0.0.0.0"}
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            body = {"model": "gatehouse", "messages": [{"role": "user", "content": "hello"}]}
            assert httpx2.post(url, json=body, timeout=30).status_code == 401
            said = httpx2.post(url, json=body, timeout=30, headers={"Authorization": f"Bearer {KEY}"})
            assert "hello" in said.json()["choices"][0]["message"]["content"]
            web.send_signal(signal.SIGTERM)
            assert web.wait(30) == 0
        finally:
            if web.poll() is None:
                os.killpg(web.pid, signal.SIGKILL)


def ready(url: str, web: subprocess.Popen[bytes]) -> httpx2.Response:
    """Return the answer of a gateway that is up."""
    deadline = time.monotonic() + 60
    while True:
        assert web.poll() is None, "the web process ended"
        try:
            answer = httpx2.get(f"{url}/readyz", timeout=5)
            if answer.status_code == 200:
                return answer
        except httpx2.TransportError:
            pass
        assert time.monotonic() < deadline, "the web process is not ready"
        time.sleep(0.1)
