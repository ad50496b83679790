"""Codex, the program: it answers, and runs a command that the model asks for."""

import os
import subprocess
import tempfile
from pathlib import Path

CONFIG = """
model = "gatehouse"
model_provider = "gatehouse"
web_search = "disabled"
[model_providers.gatehouse]
name = "Gatehouse"
base_url = "{url}/v1"
wire_api = "responses"
"""
PROGRAM = Path.cwd() / "node" / "node_modules" / ".bin" / "codex"


def said(directory: str, prompt: str) -> str:
    """Return what the program prints."""
    command = [str(PROGRAM), "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", prompt]
    environment = {"PATH": os.environ["PATH"], "HOME": directory, "CODEX_HOME": directory}
    ended = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=100, env=environment, cwd=directory,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return ended.stdout + ended.stderr


with tempfile.TemporaryDirectory() as home:
    Path(home, "config.toml").write_text(CONFIG.format(url=os.environ["GATEHOUSE_URL"]))
    shown = said(home, '[[tool exec_command {"cmd": "echo $((6 * 7))-ran"}]] [[then]] [[say I ran it]]')
    assert "42-ran" in shown, shown
    assert "I ran it" in shown, shown
