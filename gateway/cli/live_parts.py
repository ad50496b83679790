"""What `doctor` and `check --live` try for real: models, MCP servers, platforms' tokens, the way in from outside."""

from __future__ import annotations

import asyncio
import email.utils
import resource
import subprocess
import time
from datetime import UTC, datetime

import httpx2
import msgspec

from gateway.cli.finding import Finding
from gateway.own_module import own_module_command
from gateway.platform_client import PlatformClient
from gateway.platforms import enabled_platforms
from gateway.platforms.port import Adapter, ApiResponse
from shared.redaction import Redaction
from shared.settings import Settings
from worker.pool.worker_config import known_secrets, worker_config

WITHIN_S = 90.0
ASK_S = 15.0
#: more descriptors than this are there for connections, workers and the store
FEWEST_DESCRIPTORS = 4096
#: a clock that is off by more makes signatures look too old
MOST_CLOCK_S = 60.0


async def live_findings(settings: Settings) -> list[Finding]:
    """Try everything, side by side."""
    groups = await asyncio.gather(worker_side(settings), platforms(settings), public_address(settings))
    found = [*groups[0], *groups[1], *groups[2], descriptors()]
    hide = Redaction(known_secrets(settings)).clean_text
    return [Finding(one.part, one.ok, hide(one.text)) for one in found]


async def worker_side(settings: Settings) -> list[Finding]:
    """Ask the models and the MCP servers, in a process of the worker's own."""
    config = msgspec.msgpack.encode(worker_config(settings))
    try:
        ended = await asyncio.to_thread(
            subprocess.run,
            own_module_command("worker.live_check"),
            input=config,
            capture_output=True,
            timeout=WITHIN_S,
            check=False,
        )
        return msgspec.json.decode(ended.stdout, type=list[Finding])
    except subprocess.TimeoutExpired:
        return [Finding("models and mcp servers", ok=False, text=f"no answer in {WITHIN_S:g} s")]
    except msgspec.DecodeError:
        said = ended.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return [Finding("models and mcp servers", ok=False, text=f"cannot be tried: {said}")]


async def platforms(settings: Settings) -> list[Finding]:
    """Ask each platform who the bot is: its answer tells whether it takes the token."""
    client = PlatformClient()
    try:
        adapters = enabled_platforms(settings).items()
        return list(await asyncio.gather(*(platform(client, name, adapter) for name, adapter in adapters)))
    finally:
        await client.close()


async def platform(client: PlatformClient, name: str, adapter: Adapter) -> Finding:
    """Ask one platform."""
    part = f"platform {name}"
    call = adapter.identity_call() or adapter.token_call(time.time())
    if call is None:
        return Finding(part, ok=True, text="on; it has no token that could be tried")
    answer = await client.send(call)
    if not isinstance(answer, ApiResponse):
        return Finding(part, ok=False, text=answer.reason)
    said = answer.body[:200].decode("utf-8", "replace")
    if answer.status >= 400 or b'"ok":false' in answer.body.replace(b" ", b"")[:200]:
        return Finding(part, ok=False, text=f"refuses its token: {answer.status} {said}")
    off_s = clock_difference_s(answer.headers["date"])
    if off_s > MOST_CLOCK_S:
        return Finding(part, ok=False, text=f"this machine's clock is off by {off_s:.0f} s: signatures will not verify")
    return Finding(part, ok=True, text="takes its token")


async def public_address(settings: Settings) -> list[Finding]:
    """Come in from outside, where GATEHOUSE_PUBLIC_URL says: webhooks have to be there, and nothing else."""
    if not settings.webhooks.public_url:
        return []
    part = f"from outside ({settings.webhooks.public_url})"
    name = next(iter(settings.platforms), "standard")
    async with httpx2.AsyncClient(timeout=ASK_S, follow_redirects=False) as client:
        try:
            hook = await client.post(f"{settings.webhooks.public_url}/webhooks/{name}", content=b"{}")
            inside = await client.get(f"{settings.webhooks.public_url}/v1/sessions")
        except (httpx2.HTTPError, ValueError) as error:
            return [Finding(part, ok=False, text=f"cannot be reached: {error or type(error).__name__}")]
    if settings.platforms and hook.status_code not in {200, 400, 401}:
        return [Finding(part, ok=False, text=f"/webhooks/{name} answers {hook.status_code}; a gateway answers 401")]
    if inside.status_code == 200:
        return [
            Finding(part, ok=False, text="the admin API answers strangers: publish /webhooks/ alone (docs/deploy.md)")
        ]
    return [Finding(part, ok=True, text=f"/webhooks/{name} is there, the admin API is not open")]


def descriptors() -> Finding:
    """Look how many files a process started from here may open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    many = limit >= FEWEST_DESCRIPTORS or limit == resource.RLIM_INFINITY
    text = (
        f"{limit} may be open" if many else f"only {limit} may be open: `ulimit -n 65536`, or LimitNOFILE= of the unit"
    )
    return Finding("descriptors", many, text)


def clock_difference_s(date: str) -> float:
    """Return how far this machine's clock is from a Date header, 0 where it cannot be read."""
    try:
        return abs((email.utils.parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
