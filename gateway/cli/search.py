"""``search``: find what was said, in every session."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from gateway.cli.command import Invocation, Subcommand
from gateway.cli.database import opened_store
from gateway.cli.sessions import positive
from gateway.cli.terminal import table
from shared.store.port import Store
from shared.traces import SessionQuery

#: characters shown before and behind what was found
AROUND_CHARACTERS = 40


class Hit(msgspec.Struct, frozen=True):
    """One message that holds the words."""

    session: str
    #: who said it: user, assistant or tool
    role: str
    #: the words with what is around them
    excerpt: str


async def run(invocation: Invocation) -> int:
    """Print the messages that hold the words, of the sessions used last first; the exit status is 1 if none does.

    The database is read beside a gateway that runs: what it is asked would keep it from its messages.
    """
    wanted = invocation.arguments
    words = " ".join(wanted.words).casefold()
    hits: list[Hit] = []
    async with opened_store(invocation, beside_gateway=True) as store:
        with invocation.terminal.progress("search", None, "session") as bar:
            async for session, messages in conversations(store, wanted.platform):
                hits += [
                    Hit(session, role, cut(text, words)) for role, text in said(messages) if words in text.casefold()
                ]
                bar.update(1)
                if len(hits) >= wanted.limit:
                    break
    hits = hits[: wanted.limit]
    rows = ((hit.session, hit.role, hit.excerpt) for hit in hits)
    invocation.terminal.show({"hits": hits}, table(("SESSION", "WHO", "WORDS"), rows), "nobody said that")
    return 0 if hits else 1


async def conversations(store: Store, platform: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield every session with all that was said in it, the one used last first."""
    query = SessionQuery(platform=platform)
    while True:
        page = await store.sessions.page(query)
        for row in page.sessions:
            known = await store.sessions.conversation(row.key)
            yield row.key, [*await store.sessions.earlier(row.key), *known.messages]
        if page.after is None:
            return
        query = msgspec.structs.replace(query, after=page.after)


def said(messages: list[bytes]) -> Iterator[tuple[str, str]]:
    """Yield who said what of transcript messages, the newest first; what cannot be read is passed over."""
    for message in reversed(messages):
        try:
            read: Any = msgspec.json.decode(message)
        except (msgspec.DecodeError, UnicodeError):
            continue
        content = read.get("content") if isinstance(read, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        text = "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text"))
        if text:
            yield str(read.get("role", "")), text


def cut(text: str, words: str) -> str:
    """Return the words with what is around them, on one line."""
    place = max(0, text.casefold().find(words))
    begin, end = max(0, place - AROUND_CHARACTERS), place + len(words) + AROUND_CHARACTERS
    before, behind = "…" if begin else "", "…" if end < len(text) else ""
    return before + " ".join(text[begin:end].split()) + behind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words and where they are sought."""
    parser.add_argument(
        "words", nargs="+", metavar="WORD", help="the words as they stand beside each other, in any case"
    )
    parser.add_argument("--limit", type=positive, default=50, metavar="N", help="how many messages at most (50)")
    parser.add_argument("--platform", default="", metavar="NAME", help="in the sessions of one platform")


COMMAND = Subcommand(
    name="search",
    summary="find what was said, in every session",
    examples=(
        "python -m gateway search invoice 4711",
        "python -m gateway search --platform slack --limit 5 refund",
    ),
    run=run,
    add_arguments=add_arguments,
)
