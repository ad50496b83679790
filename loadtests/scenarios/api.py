"""Clients of the OpenAI-compatible API that stream: time to the first token, and tokens, as rows of their own."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, ClassVar

import msgspec
from locust import HttpUser, LoadTestShape, between, events, task

from loadtests.scenarios.rows import rows_above
from loadtests.scenarios.shape import RUN_S, run_time_s, steps

STREAM = "API"
FIRST_TOKEN_P95_MS = float(os.environ.get("LOADTEST_FIRST_TOKEN_P95_MS", "1500"))


class Steps(LoadTestShape):
    """A third of the time each with 4, 8 and 16 clients."""

    def tick(self) -> tuple[int, float] | None:
        """Return how many clients there are now, and how fast they come."""
        return steps(run_time_s(self), RUN_S, (4, 8, 16))


class ApiUser(HttpUser):
    """One client, half of whose calls go on with a named session."""

    wait_time = between(0.05, 0.2)
    _clients: ClassVar[itertools.count[int]] = itertools.count(1)

    def on_start(self) -> None:
        self.number = next(self._clients)
        self.calls = 0

    @task
    def complete(self) -> None:
        """Stream one answer to its end."""
        self.calls += 1
        words = f"call {self.calls} of client {self.number}"
        headers = {"Authorization": f"Bearer {os.environ['LOADTEST_API_KEY']}", "Content-Type": "application/json"}
        if self.calls % 2:
            headers["X-Gatehouse-Session"] = f"load-{self.number}"
        body = {"model": "offline", "stream": True, "messages": [{"role": "user", "content": words}]}
        began = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions",
            data=msgspec.json.encode(body),
            headers=headers,
            name="api headers",
            stream=True,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}: {(response.text or '')[:200]}")
                return
            self.read(response, began, words)

    def read(self, response: Any, began: float, words: str) -> None:
        """Read the stream, and record when its first token came, how many there were, and how long all took."""
        first_ms, tokens, text, ended = 0.0, 0, "", False
        for line in response.iter_lines():
            data = (line.decode() if isinstance(line, bytes) else line).removeprefix("data: ").strip()
            if data == "[DONE]":
                ended = True
            elif data.startswith("{"):
                for choice in msgspec.json.decode(data).get("choices", ()):
                    piece = choice["delta"].get("content") or ""
                    first_ms = first_ms or ((time.perf_counter() - began) * 1000 if piece else 0.0)
                    tokens += bool(piece)
                    text += piece
        problem: Exception | None = None
        if not ended:
            problem = EOFError("the stream ended before its [DONE]")
        elif words not in text:
            problem = AssertionError("the answer is to something else")
        self.record("api first token", first_ms, 0, problem)
        self.record("api answer", (time.perf_counter() - began) * 1000, tokens, problem)

    def record(self, name: str, took_ms: float, size: int, problem: Exception | None) -> None:
        """Add to a row; the size of an answer is its tokens."""
        self.environment.events.request.fire(
            request_type=STREAM,
            name=name,
            response_time=took_ms,
            response_length=size,
            exception=problem,
            context={},
        )


def judge(environment: Any, **_: Any) -> None:
    """Set the exit status: 1 for failures or missing measurements, 2 for a late first token."""
    total = environment.stats.total
    if total.num_failures or not total.num_requests:
        environment.process_exit_code = 1
    elif rows_above(environment, " first token", FIRST_TOKEN_P95_MS):
        environment.process_exit_code = 2


events.quitting.add_listener(judge)  # type: ignore[no-untyped-call]  # locust's events carry no types
