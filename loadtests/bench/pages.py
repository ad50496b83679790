"""How long the console's pages take in a browser, in front of a database that is full of sessions and dead letters.

From the beginning of a navigation, or the key or click that asks for something, until what was asked for stands on the
page, in Debian's Chromium. The database has BENCH_SESSIONS (100,000), BENCH_LETTERS (10,000) dead letters and a session
of BENCH_HISTORY (2,000) messages; BENCH_ROUNDS is how often each is looked at. Fails where a median is over a second.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from loadtests.gateway_process import GatewayProcess
from loadtests.measuring import MISSING, Samples, print_table
from shared.messages import Arrival, Dead, DeadKind, Ended, Outcome, TurnStatus
from shared.store import Store, open_store
from shared.traces import AuditEntry

if TYPE_CHECKING:
    from playwright.sync_api import Page

SESSIONS = int(os.environ.get("BENCH_SESSIONS", "100000"))
LETTERS = int(os.environ.get("BENCH_LETTERS", "10000"))
HISTORY = int(os.environ.get("BENCH_HISTORY", "2000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
ENTRIES = 10_000
LIMIT_MS = 1000
CHROMIUM = "/usr/bin/chromium"
AT_ONCE = 1000
LONG = "api:default:a long one"
SAID = (
    {"role": "user", "content": "as people write, a line or two"},
    {"role": "assistant", "content": "and what is **answered**, with `code` and a list:\n\n- one\n- two\n"},
)
STACKS = 'File "/srv/bot/tools/ledger.py", line 88, in reconcile\n    while balance != target:\n' * 12
#: notes when something is on the page first, after a navigation as after an act
WATCH = """
window.until = (selector, from = 0) => new Promise((resolve) => {
  const done = () => resolve(performance.now() - from);
  const there = () => document.querySelector(selector) && requestAnimationFrame(done);
  if (there()) return;
  const observer = new MutationObserver(() => there() && observer.disconnect());
  observer.observe(document, { childList: true, subtree: true, attributes: true, characterData: true });
});
"""


def ended(count: int) -> Ended:
    """Return the outcome of a turn that left so many messages."""
    messages = tuple(json.dumps(SAID[number % 2]).encode() for number in range(count))
    return Ended(TurnStatus.REPLIED, "answered", messages)


class Past:
    """Writes what happened before: by the statements that a gateway uses, a thousand at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = itertools.count(1)

    async def run(self, keys: list[str], outcome: Outcome) -> None:
        """Let each of these sessions have a turn that ends so."""
        for start in range(0, len(keys), AT_ONCE):
            arrivals = [self._arrival(key) for key in keys[start : start + AT_ONCE]]
            await asyncio.gather(*(self._store.inbox.accept(arrival) for arrival in arrivals))
            claims = (await self._store.claims.claim("earlier", AT_ONCE, 30)).claims
            await asyncio.gather(*(self._store.claims.settle(claim.ref, outcome) for claim in claims))
            while due := (await self._store.outbox.due("earlier", AT_ONCE, 30)).replies:
                await asyncio.gather(*(self._store.outbox.delivered(reply, "1") for reply in due))

    def _arrival(self, session: str) -> Arrival:
        number = next(self._numbers)
        return Arrival(
            f"msg_{number:032x}", session, session.partition(":")[0], f"u{number}", f"hello {number}", b"{}",
            (f"k{number}",), 60, time.time(), title=f"Person {number}",
        )  # fmt: skip


async def fill(directory: Path) -> None:
    """Fill a new database."""
    store = open_store("", directory, inbox_limit=10_000_000)
    await store.open()
    past = Past(store)
    await past.run([f"telegram:777:{number}" for number in range(SESSIONS)], ended(2))
    dead = Dead(3, "worker hung: no heartbeat for 5 s", "It failed.", STACKS, kind=DeadKind.MESSAGE)
    await past.run([f"slack:T1:{number}" for number in range(LETTERS)], dead)
    await past.run([LONG], ended(HISTORY))
    entries = [AuditEntry(time.time(), "letter_retried", "ana", f"msg_{n}", "10.0.0.1") for n in range(ENTRIES)]
    for entry in entries:
        await store.audit.add(entry)
    await store.close()


class Reader:
    """One tab, in which every page is opened anew or gone to, and timed."""

    def __init__(self, page: Page, url: str) -> None:
        self._page = page
        self._url = url
        self.samples: Samples = {}

    def opens(self, name: str, path: str, selector: str) -> None:
        """Time a page until this stands on it."""
        self._page.goto(self._url + path, wait_until="commit")
        self.samples.setdefault(name, []).append(self._page.evaluate("until(" + json.dumps(selector) + ")"))

    def acts(self, name: str, act: Callable[[Page], object], selector: str) -> None:
        """Time an act until this stands on the page, which is open already."""
        began = self._page.evaluate("performance.now()")
        act(self._page)
        self.samples.setdefault(name, []).append(self._page.evaluate(f"until({json.dumps(selector)}, {began})"))

    def look_at_all(self, letter: str) -> None:
        """Open every page once."""
        self.opens("chat, new", "/", "#sessions li")
        self.opens(f"chat, a session of {HISTORY:,} messages", f"/chat/{quote(LONG, safe='')}", ".message.user")
        self.opens("sessions", "/sessions", "#session-rows tr")
        number = SESSIONS // 2 + len(self.samples)
        row = f"#session-rows tr:only-child a[title='telegram:777:{number - 1}']"
        self.acts("sessions, found by a name", lambda page: page.fill("#session-query", f"Person {number}"), row)
        self.acts(
            "sessions, nothing fits",
            lambda page: page.fill("#session-query", "nobody is"),
            "#no-sessions:not([hidden])",
        )
        self.acts(
            "sessions, all again", lambda page: page.fill("#session-query", ""), "#session-rows tr:nth-child(100)"
        )
        self.acts(
            "sessions, the next page", lambda page: page.click("#more-sessions"), "#session-rows tr:nth-child(150)"
        )
        self.opens("a message's way", f"/messages/{letter}", "#timeline li")
        self.opens(f"{LETTERS:,} dead letters", "/dead", "#dead li")
        self.opens("workers", "/workers", "#workers tr")
        self.opens("queues and spend", "/spend", ".plot canvas")
        self.opens(f"access, {ENTRIES:,} acts", "/access", "#audit tr")


@contextmanager
def tab(url: str) -> Iterator[Reader]:
    """Open a tab of Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        page = chromium.new_page()
        page.add_init_script(WATCH)
        yield Reader(page, url)
        chromium.close()


def main() -> int:
    """Print the table; 1 if a page is over the limit, MISSING where there is no browser."""
    try:
        import playwright  # noqa: F401 - of the extra `test`
    except ImportError:
        print("playwright is not installed: it comes with the extra `test`", file=sys.stderr)
        return MISSING
    if shutil.which(CHROMIUM) is None:
        print(f"there is no {CHROMIUM}: install Debian's chromium", file=sys.stderr)
        return MISSING
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as beside:
        beside.submit(lambda: asyncio.run(fill(Path(name)))).result()
        with GatewayProcess(Path(name), {"GATEHOUSE_WORKERS": "1"}) as gateway, tab(gateway.url) as reader:
            letter = gateway.get("/v1/dead")["dead"][0]["id"]
            for _ in range(ROUNDS):
                reader.look_at_all(letter)
    print_table(f"pages in front of {SESSIONS:,} sessions, until what was asked for is there", "ms", reader.samples)
    late = [name for name, values in reader.samples.items() if statistics.median(values) > LIMIT_MS]
    for name in late:
        print(f"over {LIMIT_MS} ms: {name}", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
