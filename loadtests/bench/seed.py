"""The claims of the document this project started from (docs/seed.md), each measured and held to its limit.

Exit status 1 if one of them does not hold.
"""

from __future__ import annotations

import inspect
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loadtests.gateway_process import ROOT
from loadtests.measuring import each_us, figure, percentile, print_table, rounds
from loadtests.provider import RunningProvider, running_provider
from shared.session_files import logged_messages, session_log_path
from worker.agent.context import transcript
from worker.agent.session_cache import CachedSession, SessionCache
from worker.agent.todo import TodoStore, hydrate
from worker.run_agent import AIAgent
from worker.tools.spec import ToolCall

POLL_S = 0.05
SAVING_S = 3.2
NEVER_ENDING = ("[[stall]]", "[[dribble 0.1]]", "[[ping 0.1]]")
LEAVING = """
import sys
from worker.run_agent import AIAgent
agent = AIAgent("offline", "leaving", log_dir=sys.argv[1])
agent._save_session_log([{"role": "user", "content": str(number)} for number in range(1000)])
"""


class Claim(NamedTuple):
    """What the document says, what was measured here, and whether that is within what it says."""

    said: str
    measured: str
    holds: bool


def measure_saves(directory: Path) -> Iterator[Claim]:
    """Measure how often and how fast a session log is saved, and what of it is left at the end."""
    with AIAgent("offline", "rapid", log_dir=directory) as agent:
        messages: list[dict[str, Any]] = []
        for number in range(10):
            messages.append({"role": "user", "content": str(number)})
            agent._save_session_log(messages)
        log = agent._owned.log.start()
        while log.lines < 10:
            time.sleep(0.01)
        whole = logged_messages(session_log_path(directory, "rapid")) == messages
        yield Claim(
            "10 rapid saves make 1-2 writes", f"{log.written}, nothing missing: {whole}", log.written <= 2 and whole
        )
        before, until, took = log.written, time.monotonic() + SAVING_S, []
        while time.monotonic() < until:
            messages.append({"role": "user", "content": "more"})
            took.append(each_us(1, lambda: agent._save_session_log(messages)))
            time.sleep(0.01)
        writes = log.written - before
        said = "at least 500 ms between two writes"
        yield Claim(said, f"{writes} writes in {SAVING_S:g} s of saving always", writes <= SAVING_S / 0.5 + 1)
        middle, slow = (percentile(took, share) for share in (0.5, 0.99))
        measured = f"p50 {figure(middle)} us, p99 {figure(slow)} us"
        yield Claim("a save does not wait for the disk (5-20 ms before)", measured, middle < 1000)
    subprocess.run([sys.executable, "-c", LEAVING, str(directory)], check=True, cwd=ROOT)
    left = len(logged_messages(session_log_path(directory, "leaving")))
    yield Claim("pending logs are flushed on exit", f"{left} of 1000 messages put just before it", left == 1000)


def history_of(count: int, todo_at: int | None) -> list[bytes]:
    """Return a history of tool calls, one of them a todo call."""
    history: list[bytes] = []
    for number in range(count // 2):
        call = ToolCall(f"c{number}", "todo" if number == todo_at else "web", "{}")
        result = TodoStore().result() if number == todo_at else json.dumps({"page": "words " * 20})
        history += [transcript.assistant("", [call]), transcript.tool(call, result)]
    return history


def parse_all(history: Sequence[bytes]) -> object:
    """Look for a todo list as the first agent did: parse every message of the history, backwards."""
    for message in reversed(history):
        content = json.loads(message).get("content") or ""
        if content.startswith("{") and "todos" in json.loads(content):
            return content
    return None


class Watched(list[bytes]):
    """A history that counts the messages that are taken from it."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.taken += len(found) if isinstance(key, slice) else 1
        return found

    def __iter__(self) -> Iterator[bytes]:
        self.taken += len(self)
        return super().__iter__()


def measure_todo() -> Iterator[Claim]:
    """Measure what it takes to know a session's todo list."""
    history = history_of(1000, None)
    dicts = [json.loads(message) for message in history]
    cache = SessionCache(1000, 3600)
    cache.put("s", 7, CachedSession(tuple(history), TodoStore()))
    with AIAgent("offline", save_session_log=False) as agent:
        agent._hydrate_todo_store(dicts)
        samples = rounds(
            {
                "hit in a worker's session cache": (50_000, lambda: cache.get("s", 7)),
                "cached check of AIAgent": (50_000, lambda: agent._hydrate_todo_store(dicts)),
                "first hydration, at most 100": (200, lambda: hydrate(history)),
                "parse the whole history (1,000)": (5, lambda: parse_all(history)),
            }
        )
    in_ns = {name: [value * 1000 for value in values] for name, values in samples.items()}
    print_table("the todo list of a session with 1,000 messages", "ns", in_ns)
    check_ns = statistics.median(in_ns["cached check of AIAgent"])
    yield Claim("a cached todo check takes less than 1 us", f"{figure(check_ns)} ns", check_ns < 1000)
    watched = Watched(history)
    hydrate(watched)
    said = "a first hydration looks at 100 messages at most"
    yield Claim(said, f"{watched.taken} of {len(watched)}", watched.taken <= 100)


def polled(running: threading.Event) -> float:
    """Return the milliseconds until a loop that looks every 50 ms sees that it is to end."""
    seen: list[float] = []

    def poll() -> None:
        while not running.is_set():
            time.sleep(POLL_S)
        seen.append(time.perf_counter())

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.013)
    began = time.perf_counter()
    running.set()
    thread.join()
    return (seen[0] - began) * 1e3


def interrupted(agent: AIAgent, provider: RunningProvider) -> float:
    """Return the milliseconds from an interrupt to the end of the model call that was running."""
    ended: list[float] = []

    def call() -> None:
        try:
            agent._interruptible_api_call({"messages": [{"role": "user", "content": "[[sleep 30]]"}]})
        except InterruptedError:
            ended.append(time.perf_counter())

    thread = threading.Thread(target=call)
    thread.start()
    provider.wait_until(lambda seen: seen.running == 1)
    began = time.perf_counter()
    agent.interrupt()
    thread.join()
    provider.wait_until(lambda seen: seen.running == 0)
    return (ended[0] - began) * 1e3


def outlived_s(agent: AIAgent, words: str, timeout_s: float) -> float:
    """Return by how many seconds a call to a server that never ends outlives its timeout."""
    began = time.perf_counter()
    try:
        agent._interruptible_api_call({"messages": [{"role": "user", "content": words}]}, timeout=timeout_s)
    except TimeoutError:
        return time.perf_counter() - began - timeout_s
    raise AssertionError("the call came to an end of its own")


def measure_calls() -> Iterator[Claim]:
    """Measure how fast an interrupt acts, and by how much a call outlives its timeout."""
    doors = (AIAgent._anthropic_messages_create, AIAgent._interruptible_api_call)
    defaults = {inspect.signature(door).parameters["timeout"].default for door in doors}
    yield Claim("timeout: float = 300.0 on both doors to a model", str(sorted(defaults)), defaults == {300.0})
    with (
        running_provider() as provider,
        AIAgent("openai:test", api_key="none", base_url=provider.openai_url, save_session_log=False) as agent,
    ):
        agent.chat("hello")
        samples = {
            "interrupt of a model call": [interrupted(agent, provider) for _ in range(20)],
            "the same, polled every 50 ms": [polled(threading.Event()) for _ in range(20)],
        }
        late = {words: outlived_s(agent, words, 1) * 1e3 for words in NEVER_ENDING}
        provider.wait_until(lambda seen: seen.open_connections <= 1)
    print_table("from an interrupt to its effect", "ms", samples)
    slowest = max(samples["interrupt of a model call"])
    yield Claim("an interrupt acts far below 50 ms", f"{figure(slowest)} ms at the most", slowest < 25)
    measured = ", ".join(f"{words} {value:.0f} ms late" for words, value in late.items())
    yield Claim("no call outlives its timeout", measured, max(late.values()) < 250)


def main(directory: Path) -> int:
    """Measure every claim and print it with its figure; 0 if all of them hold."""
    parts: list[Callable[[], Iterator[Claim]]] = [lambda: measure_saves(directory), measure_todo, measure_calls]
    claims = [claim for part in parts for claim in part()]
    width = max(len(claim.said) for claim in claims)
    print("\nwhat the first document claims")
    for claim in claims:
        print(f"  {claim.said:<{width}}  {'holds' if claim.holds else 'BROKEN':<6}  {claim.measured}")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.exit(main(Path(place)))
