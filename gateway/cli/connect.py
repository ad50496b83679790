"""``connect``: registers a platform's webhook, or says which steps it takes, and tries it from outside."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from gateway.cli.acts import keep_act
from gateway.cli.command import CommandFailed, Invocation, Subcommand
from shared.platform_settings import PLATFORM_SETTINGS, required_variables
from shared.redaction import Redaction
from shared.retry import retry_after_s

if TYPE_CHECKING:
    from gateway.platform_calls import PlatformCalls
    from gateway.platforms.port import Adapter, ApiRequest

#: how often one call waits for a platform that limits them, and how long at the most, in seconds
MOST_WAITS, LONGEST_WAIT_S = 3, 60.0


async def run(invocation: Invocation) -> int:
    """Connect one platform."""
    from gateway.cli.live_parts import public_address  # clients and adapters take longer than most commands
    from gateway.platform_calls import PlatformCalls
    from gateway.platforms import enabled_platforms

    settings, name = invocation.settings, invocation.arguments.platform
    platform = enabled_platforms(settings).get(name)
    if platform is None:
        needed = ", ".join(required_variables(PLATFORM_SETTINGS[name]))
        raise CommandFailed(f"{name} is not on; set {needed} first (docs/platforms.md says where they come from)")
    if not settings.webhooks.public_url:
        raise CommandFailed("set GATEHOUSE_PUBLIC_URL first: the https address at which platforms reach this gateway")
    url = f"{settings.webhooks.public_url}/webhooks/{name}"
    setup = platform.setup(url)
    calls = PlatformCalls()
    try:
        made = [await make(calls, platform, call) for call in setup.calls]
    finally:
        await calls.close()
    if setup.calls:
        await keep_act(invocation, "platform_connected", f"{name} {url}")
    hide = Redaction(settings.secrets()).clean_text
    lines = [*setup.steps.splitlines(), "", *(hide(line) for line in made)]
    checks = await public_address(settings, name)
    lines += [f"{'ok' if check.ok else 'FAILED'}: {check.part}: {check.text}" for check in checks]
    invocation.terminal.show({"platform": name, "url": url, "lines": lines}, lines)
    return 0 if all(check.ok for check in checks) and not any(line.startswith("FAILED") for line in lines) else 1


async def make(calls: PlatformCalls, platform: Adapter, call: ApiRequest) -> str:
    """Make one call of a set-up, again where the platform asks to wait for a moment, and say what came of it."""
    answer = await calls.ask(platform, call)
    for _ in range(MOST_WAITS):
        wait_s = retry_after_s(answer.headers) if answer is not None and answer.status == 429 else None
        if wait_s is None or wait_s > LONGEST_WAIT_S:
            break
        await asyncio.sleep(wait_s)
        answer = await calls.ask(platform, call)
    path = call.url.partition("?")[0].rpartition("/")[2]
    if answer is None:
        return f"FAILED: {path}: no answer"
    said = answer.body[:300].decode("utf-8", "replace")
    refused = answer.status >= 400 or b'"ok":false' in answer.body.replace(b" ", b"")[:300]
    return f"{'FAILED' if refused else 'ok'}: {path}: {answer.status} {said}".rstrip()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the platform's name."""
    parser.add_argument("platform", choices=sorted(PLATFORM_SETTINGS), help="which platform")


COMMAND = Subcommand(
    "connect",
    "register a platform's webhook, or say which steps it takes, and try it from outside",
    (
        "python -m gateway connect telegram    # sets the webhook",
        "python -m gateway connect slack       # prints the app's manifest",
    ),
    run,
    add_arguments,
)
