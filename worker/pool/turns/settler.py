"""Writes behind the turns: checkpoints, journal and outcomes, in order per session, until they are committed or stale.

A turn never waits for it, and nothing it was given is lost to a disk that is full for a while: it keeps trying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.errors import StaleClaim, StoreUnavailable
from shared.journal import JournalEntry
from shared.messages import ClaimRef, CommandAnswer, Dead, Ended, Outcome, Step, Summary
from shared.store.port import Store
from worker.pool.store_health import StoreHealth

#: told of a claim that ended: committed with this outcome, or None if it was stale; and of commands that waited for it
OnSettled = Callable[[ClaimRef, Outcome | None, tuple[CommandAnswer, ...]], None]
#: told that an entry of the journal is committed
OnKept = Callable[[], None]


@dataclass(slots=True, eq=False)
class Due:
    """What is still to be written of one claim; the journal is that of the step behind the last of ``steps``."""

    steps: list[Step] = field(default_factory=list)
    summary: Summary | None = None
    journal: list[tuple[JournalEntry, OnKept | None]] = field(default_factory=list)
    outcome: Outcome | None = None
    told: tuple[CommandAnswer, ...] = ()

    @property
    def is_nothing(self) -> bool:
        return not (self.steps or self.summary or self.journal or self.outcome)

    @property
    def is_over(self) -> bool:
        """Whether steps and journal need not be written on their own: an end carries what they did."""
        return isinstance(self.outcome, Ended | Dead)


class Settler:
    """Owns the writes of this host's claims; ``on_settled`` is called on the loop once a claim has ended."""

    def __init__(self, store: Store, watch: StoreHealth, on_settled: OnSettled) -> None:
        self._store = store
        self._watch = watch
        self._on_settled = on_settled
        self._due: dict[ClaimRef, Due] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def refs(self) -> list[ClaimRef]:
        """The claims with something still to be written."""
        return list(self._due)

    def checkpoint(self, ref: ClaimRef, step: Step) -> None:
        """Write a finished step, soon; what its journal has not written yet is not needed any more."""
        due = self._add(ref)
        due.steps.append(step)
        due.journal = []

    def summarize(self, ref: ClaimRef, summary: Summary) -> None:
        """Write the summary that was made after the steps given so far, soon."""
        self._add(ref).summary = summary

    def journal(self, ref: ClaimRef, entry: JournalEntry, on_kept: OnKept | None = None) -> None:
        """Write an entry of the journal, soon; ``on_kept`` is called on the loop once it is committed."""
        self._add(ref).journal.append((entry, on_kept))

    def settle(self, ref: ClaimRef, outcome: Outcome) -> None:
        """End the claim this way, after the checkpoints and the journal that are still to be written."""
        self._add(ref).outcome = outcome

    async def flush(self) -> None:
        """Return once all that was given is committed or stale."""
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
        while not due.is_nothing:
            try:
                ended = await self._write(ref, due)
            except StoreUnavailable as error:
                self._watch.failed(error)
                await asyncio.sleep(self._watch.pause_s)
                continue
            except StaleClaim:
                del self._due[ref]
                self._on_settled(ref, None, ())
                return
            self._watch.worked()
            if ended is not None:
                del self._due[ref]
                self._on_settled(ref, ended, due.told)
                return
        del self._due[ref]

    async def _write(self, ref: ClaimRef, due: Due) -> Outcome | None:
        """Write one thing of what is due; return the outcome once that is written."""
        if (due.steps or due.summary) and not due.is_over:
            steps, summary = tuple(due.steps), due.summary
            await self._store.claims.checkpoint(ref, steps, summary)
            del due.steps[: len(steps)]
            due.summary = None if due.summary is summary else due.summary
            return None
        if due.journal and not due.is_over:
            await self._write_journal(ref, due.journal)
            return None
        if due.outcome is not None:
            due.told = await self._store.claims.settle(ref, due.outcome)
        return due.outcome

    async def _write_journal(self, ref: ClaimRef, journal: list[tuple[JournalEntry, OnKept | None]]) -> None:
        written = tuple(journal)
        await self._store.claims.journal(ref, [entry for entry, _ in written])
        # the list itself, not the claim's: a step that was finished meanwhile has given the claim a new one
        del journal[: len(written)]
        for _, on_kept in written:
            if on_kept is not None:
                on_kept()
