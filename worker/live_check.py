"""``python -m worker.live_check``: ask each model for one word and connect each MCP server, and tell what came of it.

It reads a WorkerConfig (msgpack) from stdin and prints one JSON array of findings. It is a process of its own because
agent code never runs in the gateway's.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec

from shared.errors import GatehouseError
from shared.events import Event, Field
from worker.agent.context import transcript
from worker.agent.models import open_link
from worker.agent.models.port import ModelRequest
from worker.frames import ModelSpec, WorkerConfig
from worker.tools.mcp.servers import McpServers
from worker.tools.toolbox import Toolbox

MODEL_WITHIN_S = 20.0
MCP_WITHIN_S = 20.0
#: what is asked for: some servers refuse less
MOST_TOKENS = 16


class LiveFinding(msgspec.Struct, frozen=True):
    """What one model or server did."""

    #: ``model NAME`` or ``mcp server NAME``
    part: str
    ok: bool
    #: what is wrong, or what there is to know
    text: str


async def check_model(spec: ModelSpec) -> LiveFinding:
    """Ask one model for one word, once: a server that is away is not waited for."""
    link = open_link(spec)
    request = ModelRequest("Answer with the one word ok.", [transcript.user("ok?")], (), max_tokens=MOST_TOKENS)
    began_at = time.monotonic()
    try:
        reply = await link.call(request, timeout=MODEL_WITHIN_S, stall_s=MODEL_WITHIN_S)
    except (GatehouseError, TimeoutError) as error:
        return LiveFinding(f"model {link.name}", False, str(error) or type(error).__name__)
    finally:
        await link.close()
    seconds = time.monotonic() - began_at
    used = f"{reply.usage.input_tokens + reply.usage.output_tokens} tokens"
    return LiveFinding(f"model {link.name}", True, f"answers in {seconds:.1f} s, {used}")


async def check_servers(config: WorkerConfig) -> list[LiveFinding]:
    """Connect every MCP server once."""
    problems: dict[str, str] = {}

    def emit(event: Event, **fields: Field) -> None:
        if event is Event.MCP_SERVER_LOST:
            problems[str(fields.get("server", ""))] = str(fields.get("problem") or fields.get("error") or "")

    toolbox = Toolbox()
    servers = McpServers(config.mcp_servers, toolbox, emit)
    try:
        await servers.start(MCP_WITHIN_S)
        return [
            LiveFinding(
                f"mcp server {status.server}",
                status.up,
                f"{status.tools} tools" if status.up else problems.get(status.server) or "does not answer",
            )
            for status in servers.status
        ]
    finally:
        servers.stop()
        await servers.close()
        toolbox.close()


async def check(config: WorkerConfig) -> list[LiveFinding]:
    """Check everything at once."""
    models, servers = await asyncio.gather(
        asyncio.gather(*map(check_model, dict.fromkeys(config.all_models))), check_servers(config)
    )
    return [*models, *servers]


def main() -> int:
    """Check what stdin names, print the findings and return the exit status."""
    config = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=WorkerConfig)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(check(config))) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
