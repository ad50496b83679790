"""Dead letters of a real poison message: seen, retried and purged, over HTTP and by command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from loadtests.platform import Fault, RunningPlatform
from loadtests.provider import RunningProvider
from tests.e2e.bot import Bot
from tests.e2e.command_line import port_of, run_command
from tests.e2e.conftest import SHORT_LADDER, started


@pytest.fixture
def poisoned(tmp_path: Path, platform: RunningPlatform, provider: RunningProvider) -> Iterator[Bot]:
    """A bot with one worker and a tool that kills it while a file exists."""
    settings = SHORT_LADDER | {"GATEHOUSE_TOOLS": "tests.e2e.ops_tools", "GATEHOUSE_WORKERS": "1"}
    with started(tmp_path, platform, provider, **settings) as running:
        yield running


def poison(bot: Bot, session: str, poisonous: Path) -> str:
    """Say what kills its worker while the file exists, until it is a dead letter; return its id."""
    poisonous.touch()
    accepted = bot.say(session, f'[[tool die_while {{"path": "{poisonous}"}}]]')
    bot.wait_until(lambda: bool(bot.replies(session)), 60, "the sender is told")
    return accepted.headers["x-gatehouse-message"]


def test_a_dead_letter_runs_again_once_its_cause_is_gone(poisoned: Bot, tmp_path: Path) -> None:
    cause = tmp_path / "cause"
    letter = poison(poisoned, "s", cause)
    port = port_of(poisoned.gateway)
    listed = run_command(tmp_path, "dead", "list", port=port)
    assert letter in listed.stdout, listed.stderr
    (row,) = poisoned.gateway.get("/v1/dead")["dead"]
    assert (row["id"], row["session"], row["attempts"]) == (letter, "standard:default:s", 2)
    died = poisoned.gateway.get(f"/v1/messages/{letter}")
    assert (died["state"], died["attempts"], died["usage"]["model_calls"]) == ("dead", 2, 1)
    assert died["accepted_at"] <= died["claimed_at"] <= died["settled_at"] <= died["replies"][0]["sent_at"]
    assert all((died["worker"], died["error"], died["replies"][0]["sent_id"]))
    traced = run_command(tmp_path, "trace", letter, port=port)
    assert [line.split()[0] for line in traced.stdout.splitlines()[1:]] == [
        "accepted", "claimed", "settled", "reply", "error",
    ]  # fmt: skip

    cause.unlink()
    retried = run_command(tmp_path, "dead", "retry", letter, port=port)
    assert (retried.returncode, retried.stdout) == (0, f"{letter}  waiting\n"), retried.stderr
    poisoned.wait_until(lambda: len(poisoned.replies("s")) == 2, 30, "the answer of the retry")
    told, answer = poisoned.replies("s")
    assert (told.status, answer.status, answer.message) == ("failed", "replied", letter)
    assert "alive" in answer.text
    assert poisoned.gateway.get("/v1/dead") == {"dead": []}
    (row,) = poisoned.gateway.get("/v1/audit")["audit"]
    assert (row["action"], row["actor"], row["target"]) == ("dead_letter_retried", "command", letter)
    trace = poisoned.gateway.get(f"/v1/messages/{letter}")
    assert (trace["state"], [reply["state"] for reply in trace["replies"]]) == ("done", ["sent", "sent"])


def test_dead_letters_are_purged_over_http_and_without_a_gateway(poisoned: Bot, tmp_path: Path) -> None:
    first, second = (poison(poisoned, session, tmp_path / "cause") for session in ("a", "b"))
    assert [row["id"] for row in poisoned.gateway.get("/v1/dead")["dead"]] == [second, first]

    purged = poisoned.gateway.ask("DELETE", f"/v1/dead/{first}")
    assert purged.json() == {"id": first, "state": "purged"}
    assert poisoned.gateway.ask("POST", f"/v1/dead/{first}/retry").status_code == 404

    held = run_command(tmp_path, "dead", "purge", second)
    assert (held.returncode, held.stderr.count("\n")) == (1, 1)
    assert "in use by another process" in held.stderr

    assert poisoned.gateway.terminate() == 0
    assert run_command(tmp_path, "dead", "purge", second).returncode == 0
    assert run_command(tmp_path, "dead", "list").stdout == ""
    poisoned.gateway.start()
    kept = poisoned.gateway.get("/v1/audit")["audit"]
    assert [(row["action"], row["target"]) for row in kept] == [
        ("dead_letter_purged", second),
        ("dead_letter_purged", first),
    ]
    assert (kept[0]["actor"], kept[0]["origin"]) == ("command", f"uid {os.getuid()}")


def test_refused_replies_are_dead_letters_that_are_sent_again_in_bulk(poisoned: Bot) -> None:
    """By kind, platform and age."""
    poisoned.platform.script("standard", Fault(status=400), Fault(status=410))
    messages = [poisoned.say(name, "hello").headers["x-gatehouse-message"] for name in ("c", "d")]
    gateway = poisoned.gateway
    poisoned.wait_until(lambda: len(gateway.get("/v1/dead")["dead"]) == 2, 30, "both refusals")
    rows = gateway.get("/v1/dead?kind=reply&platform=standard")["dead"]
    assert {(row["id"], row["kind"], row["platform"]) for row in rows} == {
        (message, "reply", "standard") for message in messages
    }
    assert all(gateway.get(f"/v1/messages/{message}")["state"] == "done" for message in messages)
    page = gateway.get("/v1/dead?limit=1")
    assert page["total"] == 2
    behind = gateway.get(f"/v1/dead?limit=1&after={quote(page['next'])}")
    assert set(behind) == {"dead"}
    assert {page["dead"][0]["id"], behind["dead"][0]["id"]} == set(messages)
    assert [row["id"] for row in gateway.get("/v1/dead?q=DEFAULT%3AC")["dead"]] == [messages[0]]
    wrong = ("after=1", "after=nan,0,,", "limit=0")
    assert [gateway.ask("GET", f"/v1/dead?{bad}").status_code for bad in wrong] == [400] * 3
    for asked, count in ((["--limit", "1"], 1), (["--kind", "reply"], 2), (["--platform", "slack"], 0)):
        listed = run_command(gateway.data_dir, "dead", "list", *asked, port=port_of(gateway))
        assert listed.stdout.count("msg_") == count, listed.stderr
        assert ("there are more" in listed.stderr) == (asked == ["--limit", "1"])
    for nothing in ("kind=model", "platform=slack", "older=3600", "q=nobody"):
        assert gateway.get(f"/v1/dead?{nothing}") == {"dead": []}
    assert gateway.ask("POST", "/v1/dead/retry", json={"kind": "letter"}).status_code == 400
    assert gateway.ask("POST", "/v1/dead/purge", json={"kind": "message"}).json()["count"] == 0
    retried = gateway.ask("POST", "/v1/dead/retry", json={"kind": "reply"}).json()
    assert (retried["state"], set(retried["ids"])) == ("waiting", set(messages))
    act = gateway.get("/v1/audit?limit=1")["audit"][0]
    assert (act["action"], act["target"]) == ("dead_letters_retried", '2 letters that fit {"kind":"reply"}')
    poisoned.wait_until(lambda: bool(poisoned.replies("c") and poisoned.replies("d")), 30, "both replies")
    assert gateway.get("/v1/dead") == {"dead": []}
