"""The load test itself, against a real gateway on the offline model."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.gateway_process import ROOT
from loadtests.platform import platform_environment
from loadtests.platform_wire import Secrets
from loadtests.program import free_port
from loadtests.scenarios.__main__ import main

LOCUST = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]


def run_locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LOCUST, *arguments], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_every_platforms_users_get_their_acks_and_their_replies(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.scenarios", "webhooks", "--seconds", "4", "--results", str(tmp_path)]
    share = os.environ | {"LOADTEST_REDELIVERED_SHARE": "0.3", "LOADTEST_ACK_P95_MS": "0", "LOADTEST_REPLY_P95_MS": "0"}
    run = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=90, env=share)
    assert run.returncode == 0, run.stdout + run.stderr
    with (tmp_path / "webhooks_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    for platform in ("standard", "slack", "telegram", "discord", "whatsapp", "line", "twilio", "mattermost"):
        assert int(rows[f"{platform} ack"]["Request Count"]) > 0
        assert int(rows[f"{platform} reply"]["Request Count"]) > 0
        assert rows[f"{platform} reply"]["Type"] == "E2E"
    assert any(name.endswith("redelivery ack") for name in rows)
    assert int(rows["Aggregated"]["Failure Count"]) == 0
    assert "Request Statistics" in (tmp_path / "webhooks.html").read_text()


def test_a_scenario_that_does_not_exist_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["weather"])
    assert "there are webhooks, api, storm, chaos" in capsys.readouterr().err


def test_a_gateway_that_is_not_there_fails_the_run(tmp_path: Path) -> None:
    run = run_locust(
        *("--host", f"http://127.0.0.1:{free_port()}", "--reply-port", str(free_port()), "-u", "2", "-r", "9"),
        *("-t", "1s"),
    )
    assert run.returncode == 1


def test_the_settings_file_fits_the_load_tests_defaults() -> None:
    lines = (ROOT / "loadtests" / "loadtest.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    expected = platform_environment("http://127.0.0.1:8099", Secrets())
    assert {name: settings[name].strip("'") for name in expected} == expected
