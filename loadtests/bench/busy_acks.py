"""Time to the ack on every platform while all workers are busy, beside half of what each platform waits for it.

BENCH_REQUESTS says how many messages each platform sends. Fails where a 99th percentile is above that half.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from loadtests import further_settings
from loadtests.gateway_process import GatewayProcess
from loadtests.loopback import Loopback
from loadtests.measuring import percentile, print_table
from loadtests.platform import platform_environment
from loadtests.provider import running_provider
from loadtests.raw_load import burst, wire_bytes
from loadtests.sender import Sender

#: how long each platform waits for its answer, in seconds. Where none is documented: what is advised of Telegram's 60
#: (2) and of Mattermost's (3), the second that Meta counts as late, and for a homeserver, which waits, its usual 10
DEADLINES_S: Mapping[str, float] = MappingProxyType(
    {
        "standard": 15.0,
        "telegram": 2.0,
        "slack": 3.0,
        "discord": 3.0,
        "whatsapp": 1.0,
        "teams": 10.0,
        "line": 2.0,
        "twilio": 15.0,
        "google_chat": 30.0,
        "mattermost": 3.0,
        "matrix": 10.0,
    }
)
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "400"))
CONNECTIONS = 4
WORKERS, TURNS = 2, 2
BUSY_S = 600


class BusyGateway(msgspec.Struct, frozen=True):
    """A gateway all of whose turns wait for their model, and what its acks are asked with."""

    gateway: GatewayProcess
    sender: Sender
    #: where the platforms' APIs are
    api: str

    async def acks_s(self, platform: str, requests: int) -> tuple[float, ...]:
        """Return the seconds to each ack of so many messages, each of another person. Raises AssertionError."""
        signed = [
            self.sender.any(platform, person, "is anybody there?", host="http://127.0.0.1", api=self.api)
            for person in range(1, requests + 1)
        ]
        measured = await burst(self.gateway.url, [wire_bytes(one) for one in signed], CONNECTIONS)
        assert measured.failures == 0, f"{measured.failures} of {requests} messages of {platform} were refused"
        return measured.latencies_s


def api_app(published: Mapping[str, object]) -> Starlette:
    """Return the APIs of all platforms: they publish their keys, and take whatever they are sent."""

    async def answer(request: Request) -> JSONResponse:
        nothing = {"ok": True, "access_token": "t", "expires_in": 3600, "joined": {}}
        return JSONResponse(published.get(request.url.path, nothing))

    return Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])])


@contextlib.contextmanager
def busy_gateway(data_dir: Path) -> Iterator[BusyGateway]:
    """Run a gateway with every platform on, whose workers are all busy until the end. Raises AssertionError."""
    published: dict[str, object] = {}
    sender = Sender()
    api = Loopback(api_app(published))
    published |= further_settings.published(api.url)
    with api.in_thread(), running_provider() as provider:
        settings = platform_environment(api.url, sender.secrets) | further_settings.all_environment(api.url)
        settings |= {
            "GATEHOUSE_WORKERS": str(WORKERS),
            "GATEHOUSE_TURNS_PER_WORKER": str(TURNS),
            "GATEHOUSE_WAITING_TURNS": "0",
            "GATEHOUSE_TURN_TIMEOUT": str(2 * BUSY_S),
            "GATEHOUSE_INBOX_LIMIT": "1000000",
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": f"{provider.url}/v1",
        }
        with GatewayProcess(data_dir, settings) as gateway:
            busy = [sender.standard(f"busy{number}", f"[[sleep {BUSY_S}]]") for number in range(WORKERS * TURNS)]
            uvloop.run(burst(gateway.url, [wire_bytes(one) for one in busy], 1))
            gateway.wait_until(lambda: provider.running == len(busy), 30, "every turn waits for its model")
            yield BusyGateway(gateway, sender, api.url)
            assert provider.running == provider.calls == len(busy), "a worker was not busy to the end"


async def measure(busy: BusyGateway, requests: int) -> dict[str, tuple[float, ...]]:
    """Return the seconds to each ack by platform; each has taken one message before, so that keys are fetched."""
    for platform in DEADLINES_S:
        await busy.acks_s(platform, 1)
    return {platform: await busy.acks_s(platform, requests) for platform in DEADLINES_S}


def late(acks_s: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """Return the 99th percentile of those platforms where it is not under half of the deadline."""
    found = {platform: percentile(times, 0.99) for platform, times in acks_s.items()}
    return {platform: p99_s for platform, p99_s in found.items() if p99_s >= DEADLINES_S[platform] / 2}


def main() -> None:
    """Measure all platforms and print their percentiles."""
    with tempfile.TemporaryDirectory() as directory, busy_gateway(Path(directory)) as busy:
        acks_s = asyncio.run(measure(busy, REQUESTS))
    for share in (0.5, 0.99):
        figures = {platform: [percentile(times, share) * 1e3] for platform, times in acks_s.items()}
        title = f"time to the ack, p{share * 100:g}, {REQUESTS} messages each, {WORKERS * TURNS} of {WORKERS * TURNS}"
        print_table(f"{title} turns busy", "ms", figures)
    print_table("half of the deadline", "ms", {platform: [s / 2 * 1e3] for platform, s in DEADLINES_S.items()})
    if slow := late(acks_s):
        raise SystemExit(f"over half of the deadline: {slow}")


if __name__ == "__main__":
    main()
