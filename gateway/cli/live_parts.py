"""What `doctor` and `check --live` try for real: models, MCP servers, platforms' tokens, the way in from outside."""

from __future__ import annotations

import asyncio
import email.utils
import resource
import subprocess
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx2
import msgspec

from gateway import request_origin
from gateway.cli.finding import Finding
from gateway.own_module import own_module_command
from gateway.platform_client import PlatformClient
from gateway.platforms import enabled_platforms
from gateway.platforms.port import Adapter, ApiRequest, ApiResponse
from gateway.request_origin import RequestOrigin, proxy_problems
from shared.platform_settings import PLATFORM_SETTINGS, required_variables
from shared.redaction import Redaction
from shared.settings import Settings
from worker.pool.worker_config import known_secrets, worker_config

WITHIN_S = 90.0
ASK_S = 15.0
#: an address that no client has (RFC 5737)
CLAIMED = "203.0.113.77"
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
    """Ask each platform whether it takes the token, and where it posts its events."""
    client = PlatformClient()
    public_url = settings.webhooks.public_url
    try:
        adapters = enabled_platforms(settings).items()
        found = await asyncio.gather(*(platform(client, name, adapter, public_url) for name, adapter in adapters))
        return [finding for some in found for finding in some]
    finally:
        await client.close()


async def platform(client: PlatformClient, name: str, adapter: Adapter, public_url: str) -> list[Finding]:
    """Ask one platform."""
    part = f"platform {name}"
    call = adapter.token_call(time.time()) or adapter.token_test()
    if call is None:
        return [Finding(part, ok=True, text="on; it has no token that could be tried")]
    answer = await client.send(call)
    if not isinstance(answer, ApiResponse):
        at = "://".join(urlsplit(call.url)[:2])  # no more of it: a token may be in the path
        return [Finding(part, ok=False, text=f"{at} cannot be reached: {answer.reason}")]
    said = answer.body[:200].decode("utf-8", "replace")
    if answer.status >= 400 or b'"ok":false' in answer.body.replace(b" ", b"")[:200]:
        return [Finding(part, ok=False, text=f"refuses its token ({token_names(name)}): {answer.status} {said}")]
    off_s = clock_difference_s(answer.headers["date"])
    if off_s > MOST_CLOCK_S:
        text = f"this machine's clock is off by {off_s:.0f} s: signatures will not verify; let it be set (NTP)"
        return [Finding(part, ok=False, text=text)]
    taken = Finding(part, ok=True, text="takes its token")
    return [taken, *await registration(client, name, adapter, public_url)]


def token_names(name: str) -> str:
    """Return the variables that a platform's token may be in."""
    secrets = [variable for variable in required_variables(PLATFORM_SETTINGS[name]) if "TOKEN" in variable]
    return ", ".join(secrets) or ", ".join(required_variables(PLATFORM_SETTINGS[name]))


async def registration(client: PlatformClient, name: str, adapter: Adapter, public_url: str) -> list[Finding]:
    """Ask a platform that tells it where it posts its events: there, and nowhere else, it has to."""
    call = adapter.registration_call()
    answer = await client.send(call) if call is not None else None
    found = adapter.registration(answer) if isinstance(answer, ApiResponse) else None
    if found is None:
        return []
    part, mend = f"webhook of {name}", f"`python -m gateway connect {name}` sets it"
    wanted = f"{public_url}/webhooks/{name}" if public_url else ""
    if not found.url:
        return [Finding(part, ok=False, text=f"none is set: no message will come; {mend}")]
    if wanted and found.url != wanted:
        return [Finding(part, ok=False, text=f"{name} posts to {found.url}, not to {wanted}; {mend}")]
    if found.problem:
        return [Finding(part, ok=False, text=f"{name} posts to {found.url} and says: {found.problem}")]
    return [Finding(part, ok=True, text=f"{name} posts to {found.url}")]


async def public_address(settings: Settings, only: str = "") -> list[Finding]:
    """Come in from outside, where GATEHOUSE_PUBLIC_URL says: webhooks, or one, have to be there, and nothing else."""
    url = settings.webhooks.public_url
    if not url:
        return []
    part = f"from outside ({url})"
    async with httpx2.AsyncClient(timeout=ASK_S, follow_redirects=False) as client:
        try:
            inside = await client.get(f"{url}/v1/sessions")
            adapters = [one for name, one in enabled_platforms(settings).items() if only in {"", name}]
            hooks = await asyncio.gather(*(way_in(client, f"{url}/webhooks/{one.name}", one) for one in adapters))
            hooks += [] if only else [await proxy_headers(client, url)]
        except (httpx2.HTTPError, ValueError) as error:
            why = f"{error or type(error).__name__}; does the name lead here, is its certificate valid?"
            return [Finding(part, ok=False, text=f"cannot be reached: {why}")]
    if inside.status_code == 200:
        text = "the admin API answers strangers: publish /webhooks/ alone (docs/deploy.md)"
        return [*hooks, Finding(part, ok=False, text=text)]
    return [*hooks, Finding(part, ok=True, text="the admin API is not open")]


async def proxy_headers(client: httpx2.AsyncClient, url: str) -> Finding:
    """Look at what a gateway is told of a request from outside, and of one that lies. Raises HTTPError."""
    part, at = "proxy headers", f"{url}{request_origin.PATH}"
    answers = [await client.get(at, headers=headers) for headers in ({}, {"x-forwarded-for": CLAIMED})]
    try:
        plain, claiming = (msgspec.json.decode(answer.content, type=RequestOrigin) for answer in answers)
    except msgspec.DecodeError:
        why = f"{at} answers {answers[0].status_code}; the proxy has to pass it on (docs/deploy.md)"
        return Finding(part, ok=False, text=f"cannot be looked at: {why}")
    if problems := proxy_problems(url, plain, claiming, CLAIMED):
        return Finding(part, ok=False, text="; ".join(problems))
    through = "they tell the client's host, protocol and address" if plain.through_proxy else "there is no proxy"
    return Finding(part, ok=True, text=through)


async def way_in(client: httpx2.AsyncClient, url: str, adapter: Adapter) -> Finding:
    """Post to a webhook as its platform does, signed where we can, which tells of headers and bodies that are changed.

    Raises HTTPError.
    """
    part = f"way in of {adapter.name}"
    signed = adapter.handshake(url, time.time())
    call = signed or ApiRequest(url, {"content-type": "application/json"}, b"{}")
    answer = await client.request(call.method, call.url, headers=call.headers, content=call.body)
    match answer.status_code:
        case 200 if signed:
            return Finding(part, ok=True, text="takes what is signed with the secret")
        case 200 | 400 | 401 if not signed:
            return Finding(part, ok=True, text="is there; only the platform can sign")
        case 401:
            why = f"{error_words(answer)}; another gateway is there, or a proxy changes headers or bodies"
            return Finding(part, ok=False, text=f"refuses what is signed with the secret: {why}")
        case 404:
            why = f"the proxy has to pass /webhooks/ on, to a gateway where {adapter.name} is on (docs/deploy.md)"
        case 502 | 503 | 504:
            why = "is the gateway up, and does the proxy lead to its HOST:PORT?"
        case status if 300 <= status < 400:
            where = answer.headers.get("location", "nowhere")
            why = f"platforms follow no redirect (to {where}): GATEHOUSE_PUBLIC_URL has to be what answers itself"
        case _:
            why = "a gateway answers 200 or 401: what else answers there?"
    return Finding(part, ok=False, text=f"{url} answers {answer.status_code}; {why}")


def error_words(answer: httpx2.Response) -> str:
    """Return what a gateway's error says, or that it is none of a gateway."""
    try:
        return str(msgspec.json.decode(answer.content)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "no gateway says that"


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
