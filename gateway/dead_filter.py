"""Which dead letters are meant, and those of a store that are."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import msgspec

from shared.messages import DeadKind
from shared.store.port import Store
from shared.traces import DeadLetter, DeadMark

#: letters that are read at once where a filter looks for some
LOOK_LIMIT = 500


class DeadFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters are meant; what is not given does not matter."""

    kind: DeadKind | None = None
    platform: str | None = None
    #: seconds since it died, at the least
    older: float = 0.0
    #: what its words, its session, its sender or its error hold, in letters of any case
    q: str = ""
    ids: frozenset[str] | None = None

    def fits(self, letter: DeadLetter, now: float) -> bool:
        """Tell whether a letter is meant."""
        words = self.q.strip().casefold()
        return (
            self.kind in {None, letter.kind}
            and self.platform in {None, letter.platform}
            and letter.dead_at <= now - self.older
            and (self.ids is None or letter.id in self.ids)
            and any(words in text.casefold() for text in (letter.text, letter.session, letter.user, letter.error))
        )


async def fitting(
    store: Store, wanted: DeadFilter, after: DeadMark | None, limit: int
) -> AsyncIterator[tuple[DeadMark, DeadLetter]]:
    """Yield up to ``limit`` letters that fit, newest first, each with its place; no read is longer than a page."""
    now = time.time()
    at_once = min(limit, LOOK_LIMIT) if wanted == DeadFilter() else LOOK_LIMIT
    found = 0
    while True:
        page = await store.inbox.dead(at_once, after)
        for place, letter in zip(page.marks, page.letters, strict=True):
            if wanted.fits(letter, now):
                yield place, letter
                found += 1
                if found == limit:
                    return
        if page.after is None:
            return
        after = page.after
