"""Users that sign Standard, Slack and Telegram webhooks and measure the ack and the time to the reply.

Run it with ``locust -f loadtests/locustfile.py``, headless or with its page; docs/load-testing.md tells how the gateway
has to be started. Every name ends in ``ack`` (the webhook's answer) or ``reply`` (sent until the platform has the
reply). Everything listens on loopback, and a run is bounded: 20 users, 60 seconds.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from typing import Any, ClassVar

from gevent.event import AsyncResult
from gevent.pywsgi import WSGIServer
from locust import FastHttpUser, between, events, task

from loadtests.platform_wire import Received, Secrets
from loadtests.scenarios.rows import rows_above
from loadtests.sender import Sender
from loadtests.signing import SignedRequest
from loadtests.wsgi_sink import ReplyDoor

REPLY = "E2E"
SECRETS = {
    "standard_secret": "STANDARD_WEBHOOK_SECRET",
    "telegram_bot_token": "TELEGRAM_BOT_TOKEN",
    "telegram_secret_token": "TELEGRAM_SECRET_TOKEN",
    "slack_signing_secret": "SLACK_SIGNING_SECRET",
    "slack_bot_token": "SLACK_BOT_TOKEN",
}
OPTIONS: tuple[tuple[str, int | float, str], ...] = (
    ("reply-port", 8099, "Loopback port that receives replies; the gateway has to send them there"),
    ("reply-within", 30.0, "Seconds after which a missing reply is a failure"),
    ("redelivered-share", 0.05, "Share of messages that are delivered twice"),
    ("ack-p95-ms", 1500.0, "Exit status 2 when an ack's 95th percentile is above this; 0 for no limit"),
    ("reply-p95-ms", 0.0, "Exit status 2 when a reply's 95th percentile is above this; 0 for no limit"),
)
log = logging.getLogger("loadtests")


class Replies:
    """Who waits for a reply, and what came for nobody."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], AsyncResult] = {}
        self.unexpected = 0

    def expect(self, platform: str, conversation: str) -> AsyncResult:
        """Return what the next reply of this conversation will be put into."""
        result = self._waiting[platform, conversation] = AsyncResult()
        return result

    def arrived(self, reply: Received) -> None:
        """Hand a reply to who waits for it."""
        waiting = self._waiting.pop((reply.platform, reply.conversation), None)
        if waiting is None:
            self.unexpected += 1
            log.error("nobody waits for a reply on %s to %s", reply.platform, reply.conversation)
        else:
            waiting.set(reply)


def add_options(parser: Any, **_: Any) -> None:
    """Add this file's options, and bound what locust leaves open: hosts, users, run time."""
    group = parser.add_argument_group("Gatehouse")
    for flag, default, meaning in OPTIONS:
        variable = "LOADTEST_" + flag.replace("-", "_").upper()
        group.add_argument(f"--{flag}", type=type(default), default=default, env_var=variable, help=meaning)
    for name, variable in SECRETS.items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            default=getattr(Secrets(), name),
            env_var=variable,
            include_in_web_ui=False,
            help=f"As {variable} of the gateway",
        )
    parser.set_defaults(
        host="http://127.0.0.1:8000",
        num_users=20,
        spawn_rate=10.0,
        run_time="60s",
        stop_timeout="35s",
        web_host="127.0.0.1",
        master_bind_host="127.0.0.1",
    )


def open_door(environment: Any, **_: Any) -> None:
    """Open the receiving platform."""
    options = environment.parsed_options
    if not hasattr(environment, "reply_door"):  # a scenario may know more platforms
        environment.reply_door = ReplyDoor
    environment.sender = Sender(Secrets(**{name: getattr(options, name) for name in SECRETS}))
    environment.replies = Replies()
    door = environment.reply_door(environment.sender.secrets, environment.replies.arrived)
    environment.reply_server = WSGIServer(("127.0.0.1", options.reply_port), door, log=None, error_log=log)
    environment.reply_server.start()
    log.info("receiving replies on http://127.0.0.1:%d", environment.reply_server.server_port)


def judge(environment: Any, **_: Any) -> None:
    """Close the door, and set the exit status: 1 for failures or missing measurements, 2 for slowness."""
    environment.reply_server.stop()
    options, total = environment.parsed_options, environment.stats.total
    slow = rows_above(environment, " ack", options.ack_p95_ms) + rows_above(environment, " reply", options.reply_p95_ms)
    unexpected = environment.replies.unexpected
    if total.num_failures or unexpected or not total.num_requests:
        log.error("%d requests, %d failures, %d replies for nobody", total.num_requests, total.num_failures, unexpected)
        environment.process_exit_code = 1
    elif slow:
        log.error("above their 95th percentile limit: %s", ", ".join(slow))
        environment.process_exit_code = 2


class ChatUser(FastHttpUser):
    """One person in one conversation, who waits for the reply before writing again."""

    abstract = True
    platform: ClassVar[str]
    wait_time = between(0.1, 0.5)
    _people: ClassVar[itertools.count[int]] = itertools.count(1)

    def on_start(self) -> None:
        self.number = next(self._people)
        self.sender: Sender = self.environment.sender
        self.said = 0

    @property
    def conversation(self) -> str:
        """What the platform calls this user's conversation."""
        raise NotImplementedError

    def sign(self, text: str) -> SignedRequest:
        """Return a new message of this user."""
        raise NotImplementedError

    @task
    def chat(self) -> None:
        """Say something, get the ack, wait for the reply."""
        options = self.environment.parsed_options
        self.said += 1
        words = f"message {self.said} of person {self.number}"
        waiting = self.environment.replies.expect(self.platform, self.conversation)
        signed = self.sign(words)
        began = time.perf_counter()
        message = self.deliver(signed, "ack")
        if not message:
            return
        if random.random() < options.redelivered_share:
            self.deliver(signed, "redelivery ack", known_as=message)
        reply = waiting.wait(timeout=max(0.0, began + options.reply_within - time.perf_counter()))
        self.measure(began, reply, words)

    def deliver(self, signed: SignedRequest, name: str, known_as: str = "") -> str:
        """Post a webhook; return the message id it was acknowledged with, or nothing.

        A redelivery has to be acknowledged with the id it is ``known_as``.
        """
        with self.client.post(
            signed.path,
            data=signed.body.decode(),
            headers=signed.headers,
            name=f"{self.platform} {name}",
            catch_response=True,
        ) as response:
            message = (response.headers or {}).get("x-gatehouse-message") or ""
            if response.status_code != 200 or not message:
                response.failure(f"status {response.status_code}: {(response.text or '')[:200]}")
                return ""
            if known_as and message != known_as:
                response.failure("a redelivery became another message")
                return ""
            return str(message)

    def measure(self, began: float, reply: Received | None, words: str) -> None:
        """Record the time to the reply; a missing or foreign one is a failure."""
        problem: Exception | None = None
        if reply is None:
            problem = TimeoutError(f"no reply within {self.environment.parsed_options.reply_within:g} s")
        elif words not in reply.text:
            problem = AssertionError("the reply answers something else")
        self.environment.events.request.fire(
            request_type=REPLY,
            name=f"{self.platform} reply",
            response_time=(time.perf_counter() - began) * 1000,
            response_length=len(reply.text) if reply else 0,
            exception=problem,
            context={},
        )


class StandardUser(ChatUser):
    """Writes through the plain signed webhook."""

    platform = "standard"

    @property
    def conversation(self) -> str:
        return f"load-{self.number}"

    def sign(self, text: str) -> SignedRequest:
        return self.sender.standard(self.conversation, text)


class SlackUser(ChatUser):
    """Writes direct messages on Slack."""

    platform = "slack"

    @property
    def conversation(self) -> str:
        return f"D{self.number:09d}"

    def sign(self, text: str) -> SignedRequest:
        return self.sender.slack(self.conversation, text, user=f"U{self.number:09d}")


class TelegramUser(ChatUser):
    """Writes private messages on Telegram."""

    platform = "telegram"

    @property
    def conversation(self) -> str:
        return str(10_000_000 + self.number)

    def sign(self, text: str) -> SignedRequest:
        return self.sender.telegram(int(self.conversation), text)


for hook, listener in (
    (events.init_command_line_parser, add_options),
    (events.init, open_door),
    (events.quitting, judge),
):
    hook.add_listener(listener)  # type: ignore[no-untyped-call]  # locust's events carry no types
