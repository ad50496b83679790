"""The JSON routes of a running gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from gateway.console import STATIC
from loadtests.gateway_process import GatewayProcess
from shared.session_files import session_log_path
from shared.session_segments import has_log, packed_segment, segment_numbers
from worker.session_log.rotation import rotate


def say(web: httpx2.Client, session: str, text: str) -> httpx2.Response:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
    headers = {b"X-Gatehouse-Session": session.encode()}
    answer = web.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def path_of(name: str, action: str = "") -> str:
    return f"/v1/sessions/{quote(f'api:default:{name}', safe='')}{action}"


def wait_until(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_a_session_shows_its_messages_and_its_todo_list(web: httpx2.Client) -> None:
    say(web, "shown", "add buy milk")
    row = next(row for row in web.get("/v1/sessions").json()["sessions"] if row["key"] == "api:default:shown")
    assert set(row) == {"key", "platform", "version", "updated_at", "running", "waiting"}
    assert (row["platform"], row["running"], row["waiting"]) == ("api", False, 0)
    session = web.get(path_of("shown")).json()
    assert set(session) == {*row, "messages", "pending", "profile", "todos", "turn", "usage"}
    assert session["usage"]["input_tokens"] > session["usage"]["output_tokens"] > 0
    assert session["usage"]["cost"] == 0  # the offline model is free
    assert session["usage"]["models"].keys() == {"offline"}
    assert session["messages"][0] == {"role": "user", "content": "add buy milk"}
    assert [(todo["content"], todo["status"]) for todo in session["todos"]] == [("buy milk", "pending")]
    assert session["turn"] is None


@pytest.mark.parametrize("name", ["a/b", "100%25 sure", "room:1/log", "später", "x/interrupt", "a//b"])
def test_any_name_is_a_session_key(web: httpx2.Client, name: str) -> None:
    say(web, name, "hello")
    assert web.get(path_of(name)).json()["key"] == f"api:default:{name}"
    assert web.post(path_of(name, "/interrupt")).json() == {"session": f"api:default:{name}", "interrupted": False}
    assert web.delete(path_of(name)).json()["deleted"] is True
    assert web.get(path_of(name)).status_code == 404


def test_a_session_log_is_served_as_json_lines(web: httpx2.Client) -> None:
    say(web, "logged", "hello")
    wait_until(lambda: b"hello" in web.get(path_of("logged", "/log")).content)
    answer = web.get(path_of("logged", "/log"))
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["role"] for line in lines if "role" in line] == ["user", "assistant"]


def test_a_session_log_is_served_with_its_segments_oldest_first_and_goes_with_its_session(
    web: httpx2.Client, running: GatewayProcess
) -> None:
    path = session_log_path(running.data_dir / "logs", "api:default:rotated")
    for number in range(3):
        say(web, "rotated", f"say {number}")
        wait_until(lambda: web.get(path_of("rotated", "/log")).text.count('"role":"user"') == number + 1)  # noqa: B023 - now
        if number < 2:
            rotate(path, 1)
    lines = [json.loads(line) for line in web.get(path_of("rotated", "/log")).text.splitlines()]
    assert [line["content"] for line in lines if line.get("role") == "user"] == ["say 0", "say 1", "say 2"]
    assert segment_numbers(path) == [1, 2]
    packed_segment(path, 1).write_bytes(b"not what was written")
    assert json.loads(web.get(path_of("rotated", "/log")).text.splitlines()[0])["event"] == "log_segment_damaged"
    web.delete(path_of("rotated"))
    assert not has_log(path)


def test_a_session_that_is_removed_at_once_leaves_no_log_either(web: httpx2.Client, running: GatewayProcess) -> None:
    """The worker holds its lines back for half a second, and writes them after the removal."""
    logs = running.data_dir / "logs"
    say(web, "removed", "hello")
    web.delete(path_of("removed"))
    say(web, "said behind it", "hello")
    wait_until(lambda: has_log(session_log_path(logs, "api:default:said behind it")))
    wait_until(lambda: not has_log(session_log_path(logs, "api:default:removed")))


def test_a_session_log_that_cannot_be_written_is_counted_and_costs_no_turn(
    web: httpx2.Client, running: GatewayProcess
) -> None:
    """It is said once, and what waits is written when the file works again."""
    path = session_log_path(running.data_dir / "logs", "api:default:unwritable")
    path.mkdir(parents=True)
    for text in ("hello", "hello again"):
        assert text in say(web, "unwritable", text).json()["choices"][0]["message"]["content"]
    wait_until(lambda: metric(web, 'gatehouse_session_log_failures_total{worker="0"}') > 1)
    assert metric(web, 'gatehouse_events_total{event="session_log_failed"}') == 1
    path.rmdir()
    wait_until(lambda: web.get(path_of("unwritable", "/log")).text.count('"role":"user"') == 2)
    assert metric(web, 'gatehouse_session_log_lost_lines_total{worker="0"}') == 0


def metric(web: httpx2.Client, name: str) -> float:
    """Return the value of one metric."""
    (line,) = (line for line in web.get("/metrics").text.splitlines() if line.startswith(name + " "))
    return float(line.rpartition(" ")[2])


def test_a_message_tells_every_stage_it_went_through(web: httpx2.Client) -> None:
    message_id = say(web, "traced", "add buy milk").headers["x-gatehouse-message"]
    wait_until(lambda: any(reply["sent_at"] for reply in web.get(f"/v1/messages/{message_id}").json()["replies"]))
    found = web.get(f"/v1/messages/{message_id}").json()
    parts = [(part["kind"], part["name"], part["ended_at"] >= part["started_at"]) for part in found["timeline"]]
    assert parts == [("model", "offline", True), ("tool", "todo", True)] * 2 + [("model", "offline", True)]
    assert found["text"] == "add buy milk"
    assert (found["id"], found["session"], found["state"]) == (message_id, "api:default:traced", "done")
    assert found["accepted_at"] <= found["claimed_at"] <= found["settled_at"]
    assert found["usage"]["model_calls"] == len(parts) - found["usage"]["tool_calls"]
    assert found["replies"][0]["state"] == "sent"


def test_the_worker_table_has_the_documented_shape(web: httpx2.Client) -> None:
    table = web.get("/v1/workers").json()
    assert set(table) == {"workers", "spares", "restarts"}
    for row in table["workers"]:
        facts = {"n", "pid", "state", "turns", "sessions", "rss_bytes", "started_at", "loop_lag_s", "todo_cache"}
        assert set(row) == facts
        assert 0 <= row["loop_lag_s"] < 60
        assert set(row["todo_cache"]) == {"hits", "misses", "size"}


def test_a_worker_that_is_killed_is_replaced(web: httpx2.Client) -> None:
    before = web.get("/v1/workers").json()["workers"][0]
    assert web.post(f"/v1/workers/{before['n']}/kill").json() == {"n": before["n"], "killed": True}

    def replaced() -> bool:
        rows = [row for row in web.get("/v1/workers").json()["workers"] if row["state"] == "ready"]
        return bool(rows) and rows[0]["pid"] != before["pid"]

    wait_until(replaced)
    assert say(web, "after the kill", "hello").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions/api%3Adefault%3Anobody"),
        ("GET", "/v1/sessions/api%3Adefault%3Anobody/log"),
        ("POST", "/v1/sessions/api%3Adefault%3Anobody/interrupt"),
        ("DELETE", "/v1/sessions/api%3Adefault%3Anobody"),
        ("GET", "/v1/sessions/"),
        ("GET", "/v1/messages/msg_0"),
        ("POST", "/v1/workers/99/kill"),
        ("POST", "/v1/dead/msg_0/retry"),
        ("DELETE", "/v1/dead/msg_0"),
        ("POST", "/v1/pairings/NOBODY/approve"),
        ("GET", "/nothing/here"),
        ("POST", "/webhooks/slack"),
    ],
)
def test_what_is_not_there_is_a_json_404(web: httpx2.Client, method: str, path: str) -> None:
    answer = web.request(method, path)
    assert answer.status_code == 404
    assert error_of(answer)["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/sessions"),
        ("POST", "/v1/sessions/api%3Adefault%3Ax"),
        ("GET", "/v1/sessions/api%3Adefault%3Ax/interrupt"),
        ("DELETE", "/livez"),
    ],
)
def test_a_wrong_method_is_a_json_405(web: httpx2.Client, method: str, path: str) -> None:
    answer = web.request(method, path)
    assert answer.status_code == 405
    assert "allow" in answer.headers
    assert error_of(answer)["type"] == "method_not_allowed"


def test_a_body_past_the_limit_is_a_json_413(web: httpx2.Client) -> None:
    answer = web.post("/v1/chat/completions", content=b" " * (4 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert error_of(answer)["type"] == "too_large"


def test_there_are_no_dead_letters_and_no_pairing_codes_at_first(web: httpx2.Client) -> None:
    assert web.get("/v1/dead").json() == {"dead": []}
    assert web.get("/v1/pairings").json() == {"pairings": [], "approved": []}


def test_the_metrics_tell_of_turns_workers_cache_and_loop(web: httpx2.Client) -> None:
    say(web, "measured", "add buy milk")
    text = web.get("/metrics").text
    for name in (
        'gatehouse_messages_total{outcome="replied",platform="api"}',
        "gatehouse_reply_seconds_bucket",
        "gatehouse_waiting ",
        "gatehouse_running_turns ",
        'gatehouse_worker_up{worker="0"} 1.0',
        "gatehouse_worker_restarts_total",
        'gatehouse_todo_cache_hits_total{worker="0"}',
        'gatehouse_todo_cache_misses_total{worker="0"}',
        'gatehouse_todo_cache_size{worker="0"}',
        'gatehouse_session_log_writes_total{worker="0"}',
        'gatehouse_session_log_failures_total{worker="0"}',
        'gatehouse_session_log_lost_lines_total{worker="0"} 0.0',
        'gatehouse_leaked_threads{worker="0"} 0.0',
        'gatehouse_tokens_total{model="offline",provider="offline",type="input"}',
        'gatehouse_tokens_total{model="offline",provider="offline",type="cache_read.input"}',
        'gatehouse_cost_total{model="offline",provider="offline"}',
        'gatehouse_model_calls_total{model="offline",provider="offline"}',
        'gatehouse_events_total{event="message_accepted"}',
        "gatehouse_loop_lag_seconds_bucket",
        'gatehouse_worker_loop_lag_seconds{worker="0"} ',
    ):
        assert name in text


def test_the_page_may_load_nothing_from_elsewhere(web: httpx2.Client) -> None:
    files = [f"/{path.relative_to(STATIC)}" for path in STATIC.rglob("*") if path.suffix in {".js", ".css", ".svg"}]
    assert {"/console.js", "/console.css", "/markdown.js"} < set(files)
    for path in ("/", "/chat/api%3Adefault%3Ax", "/messages/msg_1", "/dead", *files):
        answer = web.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_load_of_the_last_hour_is_told(web: httpx2.Client) -> None:
    say(web, "loaded", "hello")
    sample = web.get("/v1/stats").json()["samples"][-1]
    assert sample["gateway_rss_bytes"] > 1 << 20
    assert min(sample[name] for name in ("waiting", "running", "undelivered", "dead", "oldest_s", "lag_ms")) >= 0


def test_sessions_are_listed_a_page_at_a_time_and_found_by_words(web: httpx2.Client) -> None:
    for number in range(5):
        say(web, f"listed-{number}", "hello")
    wanted = {"q": "LISTED-", "limit": "2"}
    found: list[str] = []
    while True:
        page = web.get("/v1/sessions", params=wanted).json()
        found += [row["key"] for row in page["sessions"]]
        if page["next"] is None:
            break
        wanted["after"] = page["next"]
    assert sorted(found) == [f"api:default:listed-{number}" for number in range(5)]
    for wrong in ({"limit": "0"}, {"limit": "many"}, {"state": "asleep"}, {"after": "yesterday"}):
        assert web.get("/v1/sessions", params=wrong).status_code == 400


def test_a_page_of_another_origin_is_refused(web: httpx2.Client) -> None:
    assert web.get("/v1/sessions", headers={"Origin": "https://evil.example"}).status_code == 403
    assert web.get("/v1/sessions", headers={"Host": "evil.example"}).status_code == 403


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    return error


def test_turns_kills_and_keys_are_told_to_whoever_may_read(web: httpx2.Client) -> None:
    say(web, "told", "hello")
    assert web.get("/v1/turns").json() == {"turns": []}
    assert web.get("/v1/hangs").json() == {"hangs": []}
    assert web.get("/v1/keys").json() == {"keys": []}
