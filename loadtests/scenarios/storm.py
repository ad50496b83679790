"""Ten times what the gateway can do: acks stay quick, what does not fit gets 503, what was accepted is answered."""

from __future__ import annotations

import itertools
import logging
import os
import time
from typing import Any, ClassVar

import gevent
from gevent.event import AsyncResult
from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task

from loadtests.locustfile import REPLY, Replies
from loadtests.scenarios.shape import RUN_S, run_time_s, spike
from loadtests.sender import Sender

#: people who write a message a second each: usually, and in the storm
USUAL, MANY = (int(number) for number in os.environ.get("LOADTEST_STORM", "10,200").split(","))
#: how long everything that was accepted may take to be answered, once nobody writes any more
DRAINED_WITHIN_S = 120.0
log = logging.getLogger("loadtests")


class Spike(LoadTestShape):
    """The storm is the middle third of the run."""

    def tick(self) -> tuple[int, float] | None:
        """Return how many people there are now, and how fast they come."""
        return spike(run_time_s(self), RUN_S, USUAL, MANY)


class StormUser(FastHttpUser):
    """Writes a message a second, each in a conversation of its own, and waits for nothing."""

    wait_time = constant_throughput(1)
    _people: ClassVar[itertools.count[int]] = itertools.count(1)
    accepted: ClassVar[list[tuple[float, AsyncResult]]] = []
    refused: ClassVar[int] = 0

    def on_start(self) -> None:
        self.number = next(self._people)
        self.said = 0

    @task
    def write(self) -> None:
        """Post one message: 200 is kept in mind, 503 with its Retry-After is an honest answer."""
        self.said += 1
        sender: Sender = self.environment.sender
        replies: Replies = self.environment.replies
        conversation = f"storm-{self.number}-{self.said}"
        signed = sender.standard(conversation, f"message {self.said} of person {self.number}", f"person-{self.number}")
        answered = replies.expect("standard", conversation)
        began = time.time()
        with self.client.post(
            signed.path, data=signed.body.decode(), headers=signed.headers, name="storm ack", catch_response=True
        ) as response:
            if response.status_code == 200:
                self.accepted.append((began, answered))
            elif response.status_code == 503 and (response.headers or {}).get("retry-after"):
                StormUser.refused += 1
                response.success()
            else:
                response.failure(f"status {response.status_code}: {(response.text or '')[:200]}")


def until_answered(environment: Any, **_: Any) -> None:
    """Wait for the answers to all that was accepted; one that does not come is a failure."""
    deadline = time.monotonic() + DRAINED_WITHIN_S
    while time.monotonic() < deadline and not all(answer.ready() for _, answer in StormUser.accepted):
        gevent.sleep(0.1)
    missing = 0
    for began, answer in StormUser.accepted:
        missing += not answer.ready()
        problem = None if answer.ready() else TimeoutError("accepted, and not answered")
        took_ms = (answer.value.at - began) * 1000 if answer.ready() else 0.0
        environment.events.request.fire(
            request_type=REPLY, name="storm answer", response_time=took_ms, response_length=0, exception=problem,
            context={},
        )  # fmt: skip
    log.info("accepted %d, refused with 503 %d, unanswered %d", len(StormUser.accepted), StormUser.refused, missing)
    if not StormUser.refused:
        log.error("nothing was refused: that was no storm")
        environment.process_exit_code = 1


events.test_stop.add_listener(until_answered)  # type: ignore[no-untyped-call]  # locust's events carry no types
