"""Jobs on their way through the thread of an engine: they queue up, share a transaction, and are answered together."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from shared.errors import StoreUnavailable


class AnyJob(Protocol):
    """What the jobs of every engine have."""

    @property
    def future(self) -> asyncio.Future[Any]:
        """Who waits for it."""


J = TypeVar("J", bound=AnyJob)


class JobAnswer(NamedTuple):
    """What became of a job: its error, or None and its value."""

    future: asyncio.Future[Any]
    value: Any
    error: BaseException | None


class HalfDone(Exception):
    """Raised when a job failed after it had written something; its cause is the job's own error."""


class JobQueue(Generic[J]):
    """Jobs of any thread, for the one thread that runs them; at most ``limit`` share a transaction."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[J | None] = queue.SimpleQueue()
        self._closed = False

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._jobs.empty()

    def put(self, job: J) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def close(self) -> None:
        """Let ``take`` return nothing once it has returned what is queued."""
        self._closed = True
        self._jobs.put(None)

    def take_waiting(self) -> list[J]:
        """Take what is queued now, which may be nothing."""
        jobs = [] if self._jobs.empty() else self.take()
        if not jobs and self._closed:
            self._jobs.put(None)
        return jobs

    def take(self) -> list[J]:
        """Wait for a job and take all that queued up behind it; none once the queue is closed."""
        jobs: list[J] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == self._limit:
                return jobs
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs
        if jobs:
            self._jobs.put(None)
        return jobs


def refusals(jobs: Sequence[AnyJob], cause: Exception, problem: str) -> list[JobAnswer]:
    """Answer jobs of which nothing was written: with a fault of the storage, or with the job's own error."""
    if isinstance(cause, HalfDone):
        return [JobAnswer(job.future, None, cause.__cause__) for job in jobs]
    answers = []
    for job in jobs:
        error = StoreUnavailable(f"{problem}: {cause}")
        error.__cause__ = cause
        answers.append(JobAnswer(job.future, None, error))
    return answers


def give(loop: asyncio.AbstractEventLoop, answers: list[JobAnswer]) -> None:
    """Wake the callers by one call of their loop; a closed one has none any more, and what was committed stays."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[JobAnswer]) -> None:
    """Wake every caller, on the loop; a caller that was cancelled meanwhile is not there any more."""
    for future, value, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
