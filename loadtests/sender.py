"""Fresh signed webhooks: ids that never repeat and the time of now, for tests, load tests and benchmarks."""

from __future__ import annotations

import itertools
import secrets as randomness
import time

from loadtests import further_signing
from loadtests.platform_wire import Secrets
from loadtests.signing import SignedRequest, slack, standard, telegram


class Sender:
    """Signs messages with a platform's secrets; two senders never share an id."""

    def __init__(self, secrets: Secrets | None = None) -> None:
        self.secrets = secrets or Secrets()
        self._run = randomness.token_hex(6)
        self._first_update = randomness.randbits(33) << 20  # 53 bits: exact in every JSON reader
        self._numbers = itertools.count(1)

    def standard(self, session: str, text: str, user: str = "someone") -> SignedRequest:
        """Return a new Standard Webhooks message."""
        webhook_id = f"msg_{self._run}_{next(self._numbers)}"
        return standard(self.secrets.standard_secret, webhook_id, time.time(), session=session, user=user, text=text)

    def slack(self, channel: str, text: str, user: str = "U0SENDER", thread_ts: str = "") -> SignedRequest:
        """Return a new Slack event: direct in a channel that begins with D, else a mention."""
        number = next(self._numbers)
        now = time.time()
        names = {"channel": channel, "user": user, "text": text, "thread_ts": thread_ts}
        ts = f"{int(now)}.{number % 1_000_000:06d}"
        return slack(self.secrets.slack_signing_secret, f"Ev{self._run}{number}", now, ts=ts, **names)

    def telegram(self, chat: int, text: str, user: int | None = None) -> SignedRequest:
        """Return a new private Telegram message; the user is the chat's by default."""
        number = self._first_update + next(self._numbers)
        token = self.secrets.telegram_secret_token
        return telegram(token, number, time.time(), chat=chat, user=user or chat, text=text)

    def any(self, platform: str, person: int, text: str, *, host: str, api: str) -> SignedRequest:
        """Return a new message of a person on any platform.

        ``host`` is the url that the gateway is asked at, without a path; ``api`` is the platforms' url.
        """
        now = time.time() + next(self._numbers) * 1e-6  # ids are made of it: two messages of a person are never one
        match platform:
            case "standard":
                return self.standard(f"s{person}", text)
            case "slack":
                return self.slack(f"D{person}", text)
            case "telegram":
                return self.telegram(person, text)
            case "twilio":
                return further_signing.twilio(person, text, now, host)
            case "teams":
                return further_signing.teams(person, text, now, f"{api}/teams/")
        return further_signing.SIGNERS[platform](person, text, now)
