"""Two gateways and hosts of workers, real processes on one PostgreSQL: nothing changes but where things run."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.provider import RunningProvider, running_provider
from loadtests.shared_rates import run
from shared.messages import LATE_S
from shared.session_files import session_log_path
from tests.e2e.bot import Bot
from tests.postgres_server import shared_server
from worker.pool.host_lease import LEASE_S

WITHIN_S = 60.0
#: what a promise of a second may take on a machine that does much else
A_SECOND_S = 2.5


@dataclass
class Cluster:
    """Two gateways without workers, a host of workers, and what starts another."""

    first: Bot
    second: Bot
    worker: GatewayProcess
    start: Callable[..., GatewayProcess]
    provider: RunningProvider
    database_url: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(running_provider())
        platform = stack.enter_context(running_platform())
        settings = platform.environment() | {
            "DATABASE_URL": shared_server().url(),
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.openai_url,
            "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
            "GATEHOUSE_SPARES": "0",
        }

        def start(name: str, kind: str, workers: str, **more: str) -> GatewayProcess:
            directory = tmp_path_factory.mktemp(name)
            process = GatewayProcess(directory, settings | {"GATEHOUSE_WORKERS": workers} | more, (kind,))
            return stack.enter_context(process)

        def gateway(name: str) -> Bot:
            return stack.enter_context(contextlib.closing(Bot(start(name, "gateway", "0"), platform, provider)))

        first, worker = gateway("first"), start("worker", "worker", "1")
        yield Cluster(first, gateway("second"), worker, start, provider, settings["DATABASE_URL"])


def ask(gateway: GatewayProcess, text: str, **more: Any) -> httpx2.Response:
    """Ask without a session and return the whole answer."""
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}], **more}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers, timeout=WITHIN_S)


def status(gateway: GatewayProcess) -> int:
    """Return what a call is answered with at once, 0 if it waits."""
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "hello"}]}
    try:
        return httpx2.post(
            f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers, timeout=1
        ).status_code
    except httpx2.TimeoutException:
        return 0


@contextlib.contextmanager
def asking(gateway: GatewayProcess, text: str) -> Iterator[Iterator[str]]:
    """Ask for a stream; what is given yields its pieces of text."""
    body = {"model": "gatehouse", "stream": True, "messages": [{"role": "user", "content": text}]}
    url = f"{gateway.url}/v1/chat/completions"
    with httpx2.stream("POST", url, json=body, headers=gateway.headers, timeout=WITHIN_S) as answer:
        assert answer.status_code == 200, answer.read()
        yield pieces(answer)


def pieces(answer: httpx2.Response) -> Iterator[str]:
    for line in answer.iter_lines():
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            return
        if data != line:
            chunk = json.loads(data)
            assert "error" not in chunk, chunk
            if text := chunk["choices"][0]["delta"].get("content"):
                yield text


def until(condition: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Return once a condition holds."""
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def test_a_call_and_a_webhook_are_answered_by_the_worker_host_once_each(cluster: Cluster) -> None:
    answer = ask(cluster.second.gateway, "[[say over there]]")
    assert answer.status_code == 200, answer.text
    assert "over there" in answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["usage"]["total_tokens"] > 0
    request = cluster.first.request("one", "[[say hello]]", "wh_same")
    ids = {bot.post(request).headers["x-gatehouse-message"] for bot in (cluster.first, cluster.second, cluster.first)}
    assert len(ids) == 1
    until(lambda: len(cluster.first.replies("one")) == 1, "it is answered")
    sessions = cluster.first.gateway.get("/v1/sessions")["sessions"]
    assert sessions == cluster.second.gateway.get("/v1/sessions")["sessions"]
    assert [row["key"] for row in sessions] == ["standard:default:one"]
    assert len(cluster.first.replies("one")) == 1
    hosts = cluster.second.gateway.get("/v1/workers")["hosts"]
    assert sorted((row["gateway"], row["workers"]) for row in hosts) == [(False, 1), (True, 0), (True, 0)]
    logs = [
        bot.gateway.ask("GET", "/v1/sessions/standard:default:one/log").text for bot in (cluster.first, cluster.second)
    ]
    assert logs[0] == logs[1]
    lines = [json.loads(line) for line in logs[0].splitlines()]
    assert [(line["message"], line["role"]) for line in lines] == [(*ids, "user"), (*ids, "assistant")]


def test_a_reply_leaves_at_once_whichever_gateway_accepted_the_message(cluster: Cluster) -> None:
    for bot, session in ((cluster.first, "at the first"), (cluster.second, "at the second")):
        asked = time.monotonic()
        bot.say(session, "[[say soon]]")
        until(lambda: len(bot.replies(session)) == 1, "it is answered")  # noqa: B023 - called here
        assert time.monotonic() - asked < LATE_S


def test_what_a_platform_allows_a_chat_is_kept_by_two_gateways_together(cluster: Cluster) -> None:
    """Though one request a second cannot be parted; `python -m loadtests.shared_rates` does it with 1,000 replies."""
    kept = run([bot.gateway for bot in (cluster.first, cluster.second)], cluster.first.platform, range(1, 9), 3)
    assert (kept.replies, kept.repeated) == (24, 0)
    assert kept.holds, kept


def test_a_call_that_is_sent_again_to_the_other_gateway_runs_no_second_turn(cluster: Cluster) -> None:
    calls = cluster.provider.calls
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "[[sleep 0.5]] [[say once]]"}]}

    def send(bot: Bot) -> Any:
        answer = bot.gateway.ask("POST", "/v1/chat/completions", json=body, headers={"Idempotency-Key": "key of one"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    with ThreadPoolExecutor(2) as threads:  # while the first runs
        answers = list(threads.map(send, (cluster.first, cluster.second)))
    answers.append(send(cluster.second))  # and behind its end
    assert len({answer["id"] for answer in answers}) == 1
    assert {answer["choices"][0]["message"]["content"] for answer in answers} == {"once"}
    assert cluster.provider.calls == calls + 1


def test_the_text_of_a_call_comes_while_another_host_writes_it(cluster: Cluster) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    with asking(cluster.first.gateway, f"[[slow 0.01]] [[say {words}]]") as text:
        came = [(time.monotonic(), piece) for piece in text]
    assert "".join(piece for _, piece in came) == words
    assert len(came) > 5
    assert came[-1][0] - came[0][0] > 0.5  # as it was written, not at the end


def test_a_call_ends_at_a_gateway_that_hears_no_signal(cluster: Cluster) -> None:
    pooled = cluster.database_url + "?pooler=transaction"
    deaf = cluster.start("deaf", "gateway", "0", DATABASE_URL=pooled)
    asked = time.monotonic()
    with asking(deaf, "[[say without a word before]]") as text:
        assert "".join(text) == "without a word before"
    assert time.monotonic() - asked < 5 * A_SECOND_S
    assert deaf.terminate() == 0


def test_a_turn_of_one_gateway_is_stopped_by_the_other_within_a_second(cluster: Cluster) -> None:
    running = cluster.provider.running
    cluster.first.say("hung", "[[stall]]")
    until(lambda: cluster.provider.running > running, "it runs")
    asked = time.monotonic()
    answer = cluster.second.gateway.ask("POST", "/v1/sessions/standard:default:hung/interrupt")
    assert answer.json()["interrupted"] is True
    until(lambda: cluster.provider.running == running, "its call ended")
    assert time.monotonic() - asked < A_SECOND_S
    until(lambda: len(cluster.first.replies("hung")) == 1, "its sender is told")


def test_every_gateway_shows_a_turn_and_a_removal_reaches_the_host_that_ran_it(cluster: Cluster) -> None:
    todo = json.dumps({"todos": [{"id": "1", "content": "wait", "status": "in_progress"}]})
    key, running = "standard:default:shown", cluster.provider.running
    cluster.first.say("shown", f"[[tool todo {todo}]] [[then]] [[stall]]")
    until(lambda: cluster.provider.running > running, "it is in its second step")
    shown = cluster.second.gateway.get(f"/v1/sessions/{key}")
    assert shown["turn"]["step"] == 2
    assert [item["content"] for item in shown["todos"]] == ["wait"]
    cluster.second.say("shown", "/status")
    until(lambda: any("step 2" in said.text for said in cluster.first.replies("shown")), "its status is told")
    logs = cluster.worker.data_dir / "logs"
    until(lambda: any("shown" in path.name for path in logs.iterdir()), "it has a log")
    assert cluster.second.gateway.ask("DELETE", f"/v1/sessions/{key}").status_code == 200
    until(lambda: cluster.provider.running == running, "its turn ends")
    until(lambda: not any("shown" in path.name for path in logs.iterdir()), "its log is removed")


def events_of(gateway: GatewayProcess, session: str, until_name: str) -> Iterator[dict[str, Any]]:
    """Yield the events that a page of this session is told, up to one of this name."""
    url = f"{gateway.url}/v1/events?session={session}"
    with httpx2.stream("GET", url, headers=gateway.headers, timeout=WITHIN_S) as answer:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield {"event": name, **json.loads(line.removeprefix("data: "))}
                if name == until_name:
                    return


def test_a_page_of_any_gateway_shows_every_host_and_kills_its_workers(cluster: Cluster) -> None:
    shown, key = cluster.second.gateway, "standard:default:paged"
    tables = [bot.gateway.get("/v1/workers") for bot in (cluster.first, cluster.second)]
    (worker,) = tables[0]["workers"]
    assert [(row["host"], row["n"], row["pid"]) for row in tables[1]["workers"]] == [(worker["host"], 0, worker["pid"])]
    todo = json.dumps({"todos": [{"id": "1", "content": "paged", "status": "in_progress"}]})
    steps = f"[[sleep 2]] [[tool todo {todo}]] [[then]] [[slow 0.05]] [[say {'word ' * 30}]]"
    told: list[dict[str, Any]] = []
    for event in events_of(shown, key, "bye"):
        told.append(event)
        if event["event"] == "hello":  # the other hosts learn of the page with their next beats
            cluster.first.say("paged", steps)
            until(lambda: bool(shown.get("/v1/turns")["turns"]), "its turn is listed")
            assert [turn["session"] for turn in shown.get("/v1/turns")["turns"]] == [key]
        if event["event"] == "turn" and event["state"] == "replied":
            break
    names = [event["event"] for event in told]
    assert {"turn", "tool", "todo", "text"} <= set(names), names
    assert next(event["todos"] for event in told if event["event"] == "todo")[0]["content"] == "paged"
    texts = [event for event in told if event["event"] == "text"]
    assert "".join(event["text"] for event in texts) == ("word " * 30).strip()
    assert len(texts) > 3
    path = f"/v1/workers/{worker['host']}/{worker['n']}/kill"
    assert shown.ask("POST", f"/v1/workers/{worker['host']}/7/kill").status_code == 404
    killed = shown.ask("POST", path)
    assert (killed.status_code, killed.json()) == (200, {"n": 0, "killed": True, "host": worker["host"]})

    def replaced() -> bool:
        (row,) = cluster.first.gateway.get("/v1/workers")["workers"]
        return row["pid"] not in {0, worker["pid"]} and row["state"] == "ready"

    until(replaced, "another worker takes its place")


def test_a_gateway_that_starts_moves_nothing_and_a_dead_worker_host_is_replaced(cluster: Cluster) -> None:
    running, calls = cluster.provider.running, cluster.provider.calls
    with asking(cluster.first.gateway, "[[sleep 4]] [[say done]]") as text:
        until(lambda: cluster.provider.running > running, "it runs")
        third = cluster.start("third", "gateway", "1")
        assert third.events("claims_adopted") == []
        assert "done" in "".join(text)
    assert cluster.provider.calls == calls + 1
    assert third.terminate() == 0
    names = ("gone", "kept")
    for name in names:
        cluster.first.say(name, "[[say in the log]]")
    logs = [session_log_path(cluster.worker.data_dir / "logs", f"standard:default:{name}") for name in names]
    until(lambda: all(path.exists() for path in logs), "the host of workers has a log of both")
    until(lambda: all(len(cluster.first.replies(name)) == 1 for name in names), "both are answered")
    running = cluster.provider.running
    cluster.first.say("taken", "[[sleep 2]] [[say taken over]]")
    until(lambda: cluster.provider.running > running, "it runs again")
    other = cluster.start("other", "worker", "1")
    cluster.worker.kill_tree()
    killed = time.monotonic()
    until(lambda: len(cluster.first.replies("taken")) == 1, "the other host runs it")
    assert time.monotonic() - killed < LEASE_S + 20  # the least time is measured by a benchmark, on a machine at rest
    assert "taken over" in cluster.first.replies("taken")[0].text
    assert ask(cluster.second.gateway, "[[say on]]").status_code == 200
    assert other.terminate() == 0
    until(lambda: status(cluster.second.gateway) == 503, "no host has workers")
    assert cluster.second.gateway.ask("DELETE", "/v1/sessions/standard:default:gone").status_code == 200
    cluster.worker.start()
    until(lambda: not logs[0].exists(), "what was removed while the host was away is gone")
    assert logs[1].exists()
