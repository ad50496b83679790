"""A gateway with a day's work behind it and some before it: what the pages are looked at with."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import RunningPlatform, running_platform
from loadtests.provider import running_provider
from loadtests.sender import Sender
from shared.messages import Arrival, Dead, DeadKind, Ended, TurnStatus
from shared.store import open_store
from shared.usage import Usage

TALK = "api:default:release-notes"
#: session keys, what they are called, who writes, how many minutes ago
SESSIONS = [
    ("slack:T024BE7LD:C0ENGINEERING:1732713600.000100", "engineering", "U02ANA", 2),
    ("slack:T024BE7LD:D0F3JQ1AB", "Priya Natarajan", "U07PRIYA", 9),
    ("telegram:777000:-1001234567890:42", "Allotment committee 🌱", "5550001", 14),
    ("telegram:777000:5550123", "Ana Lucía Fernández", "5550123", 31),
    ("telegram:777000:5550999", "徳川 家康", "5550999", 55),
    ("standard:default:billing-export-nightly-job-of-the-finance-department", "", "cron", 74),
    ("slack:T024BE7LD:C0INCIDENTS", "incidents", "U11JO", 130),
    ("api:default:playground", "", "laptop", 190),
    ("telegram:777000:5550777", "M.", "5550777", 60 * 26),
    ("api:default:web-3fa9c1", "", "laptop", 60 * 24 * 9),
]
ANSWER = """Here is what changed since **3.1**:

| area | change | risk |
| --- | --- | --- |
| `inbox` | group commit, 2.4× the rate | low |
| delivery | one order per session, `Retry-After` honoured by chat and by app | low |
| console | pages with addresses | none |

1. Read the [upgrade notes](https://example.com/upgrade).
2. Run the migration:

```sh
python -m gateway backup /var/backups/gatehouse && python -m gateway check --live --json | jq .findings
```

> A database of 3.0 is migrated at the first start; it cannot go back without the copy.

- [x] changelog
- [ ] announcement in #engineering
"""
HISTORY: list[Mapping[str, object]] = [
    {"role": "user", "content": "Draft the release notes for 3.2 from the changelog, please."},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "read_changelog", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "todo", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "…"},
    {"role": "tool", "tool_call_id": "c2", "content": "…"},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": "Good. Which of these could break somebody who scripts against the API?"},
    {"role": "assistant", "content": "Only one: `GET /v1/dead` now answers at most 100 letters a page. "
     "Whoever reads all of them has to follow `next`."},
    {"role": "user", "content": "Put that into the notes under “Breaking”, and remind me to tell support."},
]  # fmt: skip
ASKED: list[Mapping[str, object]] = [
    {"role": "user", "content": "How far is it?"},
    {"role": "assistant", "content": "Almost there."},
]
LAST: Mapping[str, object] = {
    "role": "assistant",
    "content": "Done: it stands under **Breaking** now, and support is on the list.",
}
TODOS = [
    {"id": "1", "content": "Collect what changed from the changelog", "status": "completed"},
    {"id": "2", "content": "Write the release notes", "status": "in_progress"},
    {"id": "3", "content": "Tell support about the page size of /v1/dead", "status": "pending"},
    {"id": "4", "content": "Translate the notes", "status": "cancelled"},
]
USAGE = Usage(3, 2, 48_210, 1_944, 30_000, models={"openai:scripted": Usage(3, 2, 48_210, 1_944, 30_000)})
STACKS = 'File "/srv/bot/tools/ledger.py", line 88, in reconcile\n    while balance != target:\n' * 6
LETTERS = [
    (DeadKind.MESSAGE, "telegram:777000:5550123", "Reconcile the ledger of May with the bank's export",
     "worker hung: no heartbeat for 5 s", STACKS),
    (DeadKind.MODEL, "slack:T024BE7LD:C0INCIDENTS", "What is the state of INC-2291? Who is on call, and since when?",
     "anthropic:claude-sonnet-4-5: 529 overloaded; openai:gpt-5: 503, for the whole turn", ""),
    (DeadKind.MESSAGE, "api:default:playground", "x" * 300, "worker died: exit status 7", ""),
]  # fmt: skip


class PastClock:
    """A clock that stands at a time ago."""

    def __init__(self) -> None:
        self.minutes_ago = 0.0

    def __call__(self) -> float:
        return time.time() - self.minutes_ago * 60


async def fill(directory: Path) -> None:
    """Fill a new database with conversations and dead letters."""
    clock = PastClock()
    store = open_store("", directory, inbox_limit=1_000_000, clock=clock)
    await store.open()
    numbers = iter(range(1, 1_000_000_000))

    async def settle(session: str, text: str, user: str, title: str, outcome: Ended | Dead) -> None:
        number, platform = next(numbers), session.partition(":")[0]
        address = json.dumps({"chat_id": 1, "message_id": 0}).encode()
        arrival = Arrival(
            f"msg_{number:032x}", session, platform, user, text, address, (f"k{number}",), 60, clock(), title=title
        )
        await store.inbox.accept(arrival)
        (claim,) = (await store.claims.claim("earlier", 1, 30)).claims
        await store.claims.settle(claim.ref, outcome)
        for reply in (await store.outbox.due("earlier", 10, 30)).replies:
            if title == "M.":
                await store.outbox.refuse(reply, "Forbidden: bot was blocked by the user")
            else:
                await store.outbox.delivered(reply, "1732")

    talk = [(60 * 27.0, HISTORY[:5]), (60 * 26.5, HISTORY[5:7]), (1.5, [*HISTORY[7:], LAST])]
    rows = [(float(minutes), key, title, user, ASKED) for key, title, user, minutes in SESSIONS]
    rows += [(minutes, TALK, "", "laptop", said) for minutes, said in talk]
    for minutes, key, title, user, said in sorted(rows, key=lambda row: -row[0]):
        clock.minutes_ago = minutes
        await settle(key, str(said[0]["content"]), user, title, ended(said, TODOS if key == TALK else None))
    for kind, session, text, error, stacks in LETTERS:
        clock.minutes_ago -= 0.4
        await settle(session, text, "U11JO", "", Dead(3, error, "It failed.", stacks, kind=kind))
    await store.close()


def ended(messages: Sequence[Mapping[str, object]], todos: object = None) -> Ended:
    """Return the outcome of a turn that said this."""
    encoded = tuple(json.dumps(message).encode() for message in messages)
    todo = json.dumps(todos).encode() if todos else None
    return Ended(TurnStatus.REPLIED, str(messages[-1]["content"]), encoded, todo, USAGE, "1:4711")


@contextmanager
def busy_gateway(directory: Path) -> Iterator[GatewayProcess]:
    """Run a gateway on a filled database while turns run, strangers wait and a worker was lost."""
    with ThreadPoolExecutor(1) as beside:  # for the browser has a loop in this thread
        beside.submit(lambda: asyncio.run(fill(directory))).result()
    board = {"command": sys.executable, "args": ["-m", "no_such_module"]}
    (directory / "mcp.json").write_text(json.dumps({"mcpServers": {"board": board}}))
    with running_provider() as provider, running_platform() as platform:
        settings = {
            **platform.environment(),
            "GATEHOUSE_ALLOW": "",
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.openai_url,
            "GATEHOUSE_WORKERS": "2",
            "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
            "GATEHOUSE_MCP_CONFIG": str(directory / "mcp.json"),
            "GATEHOUSE_HEARTBEAT_TIMEOUT": "1",
            "GATEHOUSE_MAX_ATTEMPTS": "1",
            "GATEHOUSE_PRICES": "openai:scripted=3/15",
            "GATEHOUSE_HOUR_BUDGET": "$20",
            "GATEHOUSE_USER_BUDGET": "200000",
        }
        with GatewayProcess(directory, settings) as gateway:
            make_busy(gateway, platform)
            yield gateway


def make_busy(gateway: GatewayProcess, platform: RunningPlatform) -> None:
    """Let a worker hang, turns run and strangers ask to be let in."""
    sender = Sender(platform.secrets)
    requests = [sender.standard("reconcile", "[[tool block_the_loop]] reconcile the ledger", "cron")]
    requests += [sender.telegram(5551000 + number, "hello", 5551000 + number) for number in range(3)]
    for request in requests:
        httpx2.post(gateway.url + request.path, content=request.body, headers=request.headers).raise_for_status()
    gateway.wait_for("worker_killed")
    code = gateway.get("/v1/pairings")["pairings"][0]["code"]
    gateway.ask("POST", f"/v1/pairings/{code}/approve").raise_for_status()
    for name, text in (("nightly-import", '[[tool rest {"seconds": 3600}]]'), ("digest", "[[stall]] digest")):
        request = sender.standard(name, text, "cron")
        httpx2.post(gateway.url + request.path, content=request.body, headers=request.headers).raise_for_status()
    gateway.wait_until(lambda: len(gateway.get("/v1/turns")["turns"]) == 2, 30, "two turns run")
