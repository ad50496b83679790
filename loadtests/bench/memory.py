"""What a turn pays for its log, its todo list and its interrupts, beside what it would pay the usual way."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from loadtests.measuring import figure, percentile, print_table
from loadtests.provider import RunningProvider, running_provider
from shared.events import Events
from shared.session_files import log_line, logged_messages, session_log_path
from worker.agent import transcript
from worker.agent.models.port import ToolCall
from worker.agent.session_cache import CachedSession, SessionCache
from worker.agent.session_log import SessionLog
from worker.agent.todo import TodoStore, hydrate
from worker.log_ring import HEADER_BYTES, LogRing
from worker.run_agent import AIAgent

ROUNDS = 5
MESSAGE = transcript.user("a message as people write them, " * 6)
POLL_S = 0.05


def each_us(count: int, deed: Callable[[], object]) -> float:
    """Return the microseconds that one call takes, over ``count`` of them."""
    began = time.perf_counter()
    for _ in range(count):
        deed()
    return (time.perf_counter() - began) / count * 1e6


def rounds(contenders: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, list[float]]:
    """Measure every contender once a round."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, (count, deed) in contenders.items():
            samples[name].append(each_us(count, deed))
    return samples


def new_log(log_dir: Path, flush_interval_s: float = 0.5, ring_bytes: int = 4 << 20) -> SessionLog:
    """Return a session log over a ring of this process."""
    ring = LogRing(memoryview(bytearray(HEADER_BYTES + ring_bytes)))
    return SessionLog(log_dir, ring, flush_interval_s, Events().emit)


class Rewriter:
    """A session log as one JSON document that every turn writes anew and syncs."""

    def __init__(self, path: Path, messages: int) -> None:
        self._path = path
        self._messages = [json.loads(MESSAGE) for _ in range(messages)]

    def save(self) -> None:
        with self._path.open("w") as file:
            json.dump({"messages": self._messages}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())


def measure_log(directory: Path) -> None:
    """Print what one turn pays for its session log."""
    log, line = new_log(directory / "logs"), log_line(time.time(), "s", MESSAGE)
    log.start()
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.getLogger("bench")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.handlers.QueueHandler(records))
    text = line.decode()
    samples = rounds(
        {
            "put into the session log": (4000, lambda: log.put("s", line)),
            "logging with a QueueHandler": (4000, lambda: logger.info(text)),
            "rewrite and fsync, 100 messages": (20, Rewriter(directory / "100.json", 100).save),
            "rewrite and fsync, 1,000 messages": (5, Rewriter(directory / "1000.json", 1000).save),
        }
    )
    whole = log.close()
    print_table("the session log: what a turn waits for", "us", samples)
    print(f"  {log.lines} lines put, {log.written} file writes, all of them in the file: {whole}")
    slowest_us = percentile([each_us(1, lambda: log.put("s", line)) for _ in range(4000)], 0.999)
    print(f"  slowest put of a thousand: {figure(slowest_us)} us")


def measure_rapid_saves(directory: Path) -> None:
    """Print how many writes ten rapid saves make."""
    with AIAgent("offline", "rapid", log_dir=directory) as agent:
        messages: list[dict[str, Any]] = []
        for number in range(10):
            messages.append({"role": "user", "content": str(number)})
            agent._save_session_log(messages)
        log = agent._log()
        while log.lines < 10:
            time.sleep(0.01)
        print(
            f"\nten rapid saves: {log.written} file write(s), after them {len(messages)} messages in the log:", end=" "
        )
        print(len(logged_messages(session_log_path(directory, "rapid"))) == 10)


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


def measure_todo() -> None:
    """Print what it takes to know a session's todo list."""
    history = history_of(1000, None)
    dicts = [json.loads(message) for message in history]
    cache = SessionCache(1000, 3600)
    cache.put("s", 7, CachedSession(tuple(history), TodoStore()))
    with AIAgent("offline", save_session_log=False) as agent:
        agent._hydrate_todo_store(dicts)
        samples = rounds(
            {
                "hit in the session cache": (50_000, lambda: cache.get("s", 7)),
                "cached check of AIAgent": (50_000, lambda: agent._hydrate_todo_store(dicts)),
                "first hydration, at most 100": (200, lambda: hydrate(history)),
                "parse the whole history (1,000)": (5, lambda: parse_all(history)),
            }
        )
    print_table("the todo list of a session with 1,000 messages", "us", samples)
    watched = Watched(history)
    hydrate(watched)
    print(f"  a first hydration looked at {watched.taken} of {len(watched)} messages")


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


def measure_calls() -> None:
    """Print how fast an interrupt acts, and how far a call outlives its timeout."""
    with (
        running_provider() as provider,
        AIAgent("openai:test", api_key="none", base_url=provider.openai_url, save_session_log=False) as agent,
    ):
        agent.chat("hello")
        samples = {
            "interrupt of a model call": [interrupted(agent, provider) for _ in range(20)],
            "the same, polled every 50 ms": [polled(threading.Event()) for _ in range(20)],
        }
        print_table("from an interrupt to its effect", "ms", samples)
        for words in ("[[stall]]", "[[dribble 0.1]]"):
            print(f"  timeout 1 s, server does {words}: ended {outlived_s(agent, words, 1) * 1e3:.0f} ms after it")


def main(parts: Iterable[Callable[[], object]]) -> None:
    """Run every part."""
    for part in parts:
        part()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main([lambda: measure_log(Path(place)), lambda: measure_rapid_saves(Path(place)), measure_todo, measure_calls])
