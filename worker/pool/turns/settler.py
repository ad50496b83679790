"""Writes behind the turns: checkpoints, journal and outcomes, in order per session, until they are committed or stale.

A turn never waits for it, and nothing it was given is lost to a disk that is full for a while: it keeps trying. What
cannot be written for another reason is told, and its claim is given an outcome that can.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec

from shared.errors import StaleClaim, StoreDamaged, StoreUnavailable
from shared.journal import CallIntent, JournalEntry
from shared.messages import ClaimRef, Dead, Ended, Outcome, Settlement, Step, Summary
from shared.store.port import Store
from worker.pool.feed import Feed
from worker.pool.store_health import StoreHealth
from worker.pool.turns.observer import TurnObserver

#: how often a write is tried that fails in a way nobody expected, and the wait between two tries, in seconds
TRIES = 3
AGAIN_S = 0.2


class ClaimSettled(msgspec.Struct, frozen=True):
    """A claim has ended this way; it is committed."""

    #: which
    ref: ClaimRef
    #: how
    outcome: Outcome
    #: what it has brought about in its session
    settlement: Settlement = Settlement()


class ClaimStale(msgspec.Struct, frozen=True):
    """A claim is somebody else's by now, or its database is damaged: nothing of it is written any more."""

    #: which
    ref: ClaimRef


class CommittedIntent(msgspec.Struct, frozen=True):
    """The intent of a tool call is committed whose call waits for that."""

    #: the claim
    ref: ClaimRef
    #: id of the call
    call_id: str


class ClaimUnwritable(msgspec.Struct, frozen=True):
    """The store raised what it is not meant to, again and again; what was due of the claim is dropped."""

    #: the claim
    ref: ClaimRef
    #: the outcome that was due, None where steps or journal were
    outcome: Outcome | None
    #: what was raised last
    error: Exception


SettlerNews = ClaimSettled | ClaimStale | CommittedIntent | ClaimUnwritable


@dataclass(slots=True, eq=False)
class Due:
    """What is still to be written of one claim."""

    #: the bytes that the results of tools refer to, by digest: they are there before what refers to them
    attachments: dict[str, bytes] = field(default_factory=dict)
    #: finished steps
    steps: list[Step] = field(default_factory=list)
    #: the summary that was made after them
    summary: Summary | None = None
    #: entries of the step behind the last of ``steps``, and whether a call waits for each
    journal: list[tuple[JournalEntry, bool]] = field(default_factory=list)
    #: how the claim ends
    outcome: Outcome | None = None

    @property
    def is_nothing(self) -> bool:
        return not (self.attachments or self.steps or self.summary or self.journal or self.outcome)

    @property
    def is_over(self) -> bool:
        """Whether steps and journal need not be written on their own: an end carries what they did."""
        return isinstance(self.outcome, Ended | Dead)


class Settler:
    """Owns the writes of this host's claims; what becomes of them it tells in its ``news``."""

    def __init__(self, store: Store, health: StoreHealth, observer: TurnObserver) -> None:
        self.news: Feed[SettlerNews] = Feed()
        self._store = store
        self._health = health
        self._observer = observer
        self._due: dict[ClaimRef, Due] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def refs(self) -> list[ClaimRef]:
        """The claims with something still to be written."""
        return list(self._due)

    def keep(self, ref: ClaimRef, digest: str, data: bytes) -> None:
        """Write the bytes of an image or a file, before the result of the tool that returned it."""
        self._add(ref).attachments[digest] = data

    def checkpoint(self, ref: ClaimRef, step: Step) -> None:
        """Write a finished step, soon; what its journal has not written yet is not needed any more."""
        due = self._add(ref)
        due.steps.append(step)
        due.journal = []

    def summarize(self, ref: ClaimRef, summary: Summary) -> None:
        """Write the summary that was made after the steps given so far, soon."""
        self._add(ref).summary = summary

    def journal(self, ref: ClaimRef, entry: JournalEntry, *, waits: bool = False) -> None:
        """Write an entry of the journal, soon; where a call ``waits`` for it, its commit is told."""
        self._add(ref).journal.append((entry, waits))

    def settle(self, ref: ClaimRef, outcome: Outcome) -> None:
        """End the claim this way, after the checkpoints and the journal that are still to be written."""
        self._add(ref).outcome = outcome

    async def flush(self) -> None:
        """Return once all that was given is committed, stale, or told to be unwritable."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Give up what could not be written: the claims run out, and the turns resume from their checkpoints."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add(self, ref: ClaimRef) -> Due:
        due = self._due.get(ref)
        if due is None:
            due = self._due[ref] = Due()
            task = asyncio.get_running_loop().create_task(self._write_all(ref, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return due

    async def _write_all(self, ref: ClaimRef, due: Due) -> None:
        faults = 0
        while not due.is_nothing:
            try:
                settled = await self._write(ref, due)
            except StoreDamaged as error:  # for good: nobody is to wait for a write that can never succeed
                self._health.failed(error)
                self._drop(ref, ClaimStale(ref))
                return
            except StoreUnavailable as error:
                self._health.failed(error)
                await asyncio.sleep(self._health.pause_s)
                continue
            except StaleClaim:
                self._drop(ref, ClaimStale(ref))
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, one claim pays for it and no other
                faults += 1
                if faults == TRIES:
                    self._drop(ref, ClaimUnwritable(ref, due.outcome, error))
                    return
                await asyncio.sleep(AGAIN_S)
                continue
            faults = 0
            self._health.worked()
            if settled is not None:
                self._drop(ref, settled)
                return
        del self._due[ref]

    def _drop(self, ref: ClaimRef, news: SettlerNews) -> None:
        del self._due[ref]
        self.news.put(news)

    async def _write(self, ref: ClaimRef, due: Due) -> ClaimSettled | None:
        """Write one thing of what is due; return the end of the claim once that is written."""
        if due.attachments:
            digest, data = next(iter(due.attachments.items()))
            await self._store.sessions.keep_attachments(ref.session, {digest: data})
            del due.attachments[digest]
            return None
        if (due.steps or due.summary) and not due.is_over:
            steps, summary = tuple(due.steps), due.summary
            await self._store.claims.checkpoint(ref, steps, summary)
            del due.steps[: len(steps)]
            due.summary = None if due.summary is summary else due.summary
            return None
        if due.journal and not due.is_over:
            await self._write_journal(ref, due.journal)
            return None
        if (outcome := due.outcome) is not None:
            self._observer.settling(ref.session)
            return ClaimSettled(ref, outcome, await self._store.claims.settle(ref, outcome))
        return None

    async def _write_journal(self, ref: ClaimRef, journal: list[tuple[JournalEntry, bool]]) -> None:
        written = tuple(journal)
        await self._store.claims.journal(ref, [entry for entry, _ in written])
        # the list itself, not the claim's: a step that was finished meanwhile has given the claim a new one
        del journal[: len(written)]
        for entry, waits in written:
            if waits and isinstance(entry, CallIntent):
                self.news.put(CommittedIntent(ref, entry.call_id))
