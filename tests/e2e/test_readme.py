"""What README shows works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from loadtests.gateway_process import ROOT, GatewayProcess

README = (ROOT / "README.md").read_text("utf-8")
SECRET = "whsec_" + "c2VjcmV0" * 4


def block(language: str, holds: str) -> str:
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holds in text]
    return str(found)


@pytest.mark.skipif(not all(map(shutil.which, ("openssl", "curl"))), reason="needs openssl and curl")
def test_the_signed_request_is_accepted_and_the_tool_rolls(tmp_path: Path) -> None:
    (tmp_path / "mybot").mkdir()
    (tmp_path / "mybot" / "tools.py").write_text(block("python", "def roll"))
    settings = {
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_SPARES": "0",
        "GATEHOUSE_TOOLS": "mybot.tools",
        "STANDARD_WEBHOOK_SECRET": SECRET,
        "STANDARD_WEBHOOK_REPLY_URL": "http://127.0.0.1:9/replies",
    }
    with GatewayProcess(tmp_path, settings) as gateway:
        script = block("sh", "openssl dgst").replace("http://127.0.0.1:8000", gateway.url)
        environment = {"PATH": os.environ["PATH"], "STANDARD_WEBHOOK_SECRET": SECRET}
        answer = subprocess.run(
            ["sh", "-euc", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert answer.stdout.startswith("HTTP/1.1 200"), answer.stdout + answer.stderr
        (message,) = re.findall(r"(?im)^x-gatehouse-message: (\S+)", answer.stdout)
        assert message.startswith("msg_")
        body = {"model": "gatehouse", "messages": [{"role": "user", "content": "roll 6"}]}
        headers = {"X-Gatehouse-Session": "dice"}
        rolled = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30).json()
        assert re.fullmatch(r"roll: [1-6]", rolled["choices"][0]["message"]["content"]), rolled
