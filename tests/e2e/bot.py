"""A whole bot under test: a real gateway process, the platform that receives its replies, and its model provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import msgspec

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import RunningPlatform
from loadtests.provider import RunningProvider
from loadtests.sender import Sender
from loadtests.signing import SignedRequest, sign_standard, standard


class Said(msgspec.Struct, frozen=True):
    """One reply as it arrived at the platform."""

    session: str
    message: str
    text: str
    status: str


class Bot:
    """Says things to the gateway and hears what it answers."""

    def __init__(self, gateway: GatewayProcess, platform: RunningPlatform, provider: RunningProvider | None) -> None:
        self.gateway = gateway
        self.platform = platform
        self.provider = provider
        self._sender = Sender(platform.secrets)
        self._client = httpx2.Client(timeout=30)

    def close(self) -> None:
        self._client.close()

    def post(self, request: SignedRequest) -> httpx2.Response:
        """Post one webhook and return the answer."""
        return self._client.post(self.gateway.url + request.path, content=request.body, headers=request.headers)

    def say(self, session: str, text: str) -> httpx2.Response:
        """Post one new message."""
        return self.post(self._sender.standard(session, text))

    def request(self, session: str, text: str, message: str) -> SignedRequest:
        """Return a signed message with a webhook id of the caller's."""
        secret = self.platform.secrets.standard_secret
        return standard(secret, message, time.time(), session=session, user="someone", text=text)

    def signed(self, body: bytes) -> SignedRequest:
        """Sign any body."""
        return sign_standard(self.platform.secrets.standard_secret, f"msg_{time.monotonic_ns()}", body, time.time())

    def replies(self, session: str | None = None) -> list[Said]:
        """Return what came back so far, of one session where given, in the order it came."""
        return [msgspec.convert(reply.body, Said) for reply in self.platform.received("standard", session)]

    def wait_for_replies(self, count: int, within_s: float = 30) -> None:
        """Wait until so many replies came back."""
        self.wait_until(lambda: len(self.platform.received("standard")) >= count, within_s, f"{count} replies")

    def wait_for_model_calls(self, count: int, within_s: float = 30) -> None:
        """Wait until the provider was called so often."""
        provider = self.provider
        assert provider is not None
        self.wait_until(lambda: provider.calls >= count, within_s, f"{count} model calls")

    def wait_for_running_model_call(self, within_s: float = 30) -> None:
        """Wait until the provider answers a call."""
        provider = self.provider
        assert provider is not None
        self.wait_until(lambda: provider.running > 0, within_s, "a model call runs")

    def wait_until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait until a condition holds."""
        self.gateway.wait_until(condition, within_s, what)

    def seconds_to_reply(self, session: str, text: str) -> float:
        """Say something and return the seconds until its reply came back."""
        asked = time.monotonic()
        assert self.say(session, text).status_code == 200
        self.wait_until(lambda: bool(self.replies(session)), 30, f"a reply in {session}")
        return time.monotonic() - asked

    def secrets(self) -> list[str]:
        """Return every secret the gateway was given."""
        return [str(value) for value in msgspec.structs.asdict(self.platform.secrets).values()]


def processes_named(*command: str) -> list[int]:
    """Return the processes that run exactly this command line."""
    wanted = b"\0".join(word.encode() for word in command) + b"\0"
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if line.read_bytes() == wanted:
                found.append(int(line.parent.name))
        except OSError:
            continue
    return found
