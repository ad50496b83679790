"""One worker process as its parent sees it: its channel, its shared page, its stacks, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import time

import msgspec

from shared.errors import ChannelClosed, ChannelError
from shared.events import Event, Events
from worker import os_processes
from worker.channel import Channel, open_channel
from worker.frames import Drained, LogEvent, Ready, Report, ToPool, ToWorker
from worker.pool.feed import Feed
from worker.pool.processes.death import Cause, Death
from worker.pool.processes.process_watch import ProcessWatch
from worker.pool.processes.spawn import Spawned

#: the longest a killed worker's stacks are waited for, in seconds
STACKS_WAIT_S = 0.25
#: seconds between two looks at the stacks; they are whole when two looks see the same
STACKS_LOOK_S = 0.01
#: the most of a stack dump that is read, in bytes
STACKS_LIMIT_BYTES = 256 * 1024
#: a loop that had not beaten for so long when its process ended was held up, in seconds
HELD_UP_S = 0.5
#: the exit code the process library makes up when the fork server is gone and cannot tell it
UNTOLD_EXIT_CODE = 255
#: how long the last frames and the exit code of an ended process are waited for, in seconds
LAST_WORDS_S = 0.25

#: what a worker may name
EVENTS = frozenset(Event)
NOTHING_REPORTED = Report(
    cache_hits=0, cache_misses=0, cache_size=0, rss_bytes=0, leaked_threads=0, log_written=0, log_failed=0
)


class WorkerState(enum.StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"  #: no worker is ready in this slot yet
    SPARE = "spare"  #: ready, holds no slot
    READY = "ready"  #: takes turns
    QUARANTINE = "quarantine"  #: runs suspects, one at a time
    DRAINING = "draining"  #: parks its turns, then ends
    DYING = "dying"  #: being killed


class WorkerProcess:
    """One worker process; must be made on the loop.

    ``n`` is the slot it holds or held last (None for a spare), ``death`` what the parent killed it for,
    ``expected`` whether its end was asked for, ``gone`` is set once the process is gone and its last frame was read.
    What it does goes into the ``feed``.
    """

    def __init__(self, spawned: Spawned, feed: Feed[WorkerNews]) -> None:
        self._process = spawned.process
        self.server_pid = spawned.server_pid
        self._released = False
        self._exit_code: int | None = None
        self._sock = spawned.sock
        self.page = spawned.page
        self._stacks_fd = spawned.stacks_fd
        self._feed = feed
        self._channel: Channel[ToPool, ToWorker] | None = None
        self._writable = asyncio.Event()
        self._last_frame_read = asyncio.Event()
        self._last_words: asyncio.Task[None] | None = None
        self.became_ready = asyncio.Event()
        self.gone = asyncio.Event()
        self.pid = spawned.process.pid or 0
        self.n: int | None = None
        self.state = WorkerState.STARTING
        self.started_at = time.time()
        self.started_mono = time.monotonic()
        self.ready: Ready | None = None
        self.report = NOTHING_REPORTED
        self.turns_done = 0
        self.expected = False
        self.death: Death | None = None
        self.drained_mono: float | None = None
        self._silent_s = 0.0
        self.watch = ProcessWatch(self.pid, self._process_ended)

    @property
    def name(self) -> str:
        """What traces call it: its slot and its process."""
        return f"{self.n}:{self.pid}"

    @property
    def usable(self) -> bool:
        """Tell whether turns can be sent: ready, not on its way out."""
        return self.ready is not None and self.death is None and not self.watch.ended

    @property
    def full(self) -> bool:
        """Tell whether the channel holds so much unsent that nothing large should follow."""
        return self._channel is not None and self._channel.full

    @property
    def loop_lag_s(self) -> float:
        """How late its loop ran a timer at the most in the last half minute, or is now, in seconds."""
        return 0.0 if self.watch.ended else self.page.loop_lag_s()

    @property
    def exit_code(self) -> int | None:
        """The exit code as the process library tells it, negative for a signal; None while unknown."""
        return self._exit_code if self._released else self._process.exitcode

    @property
    def killed_from_outside(self) -> bool:
        """Tell whether it was ended by a SIGKILL that was not ours, or with its fork server."""
        if self.exit_code == UNTOLD_EXIT_CODE:
            return not os_processes.alive(self.server_pid)
        return self.exit_code == -signal.SIGKILL and self.death is None

    @property
    def stopped(self) -> bool:
        """Tell whether somebody stopped the process, with SIGSTOP or a debugger."""
        return os_processes.state(self.pid) in {"T", "t"}

    @property
    def exit_text(self) -> str:
        """How the process ended, for people."""
        code = self.exit_code
        if code is None:
            return "the worker process has not ended" if not self.watch.ended else "the worker process ended"
        if code >= 0:
            return f"the worker process ended with status {code}"
        with contextlib.suppress(ValueError):
            return f"the worker process was ended by {signal.Signals(-code).name}"
        return f"the worker process was ended by signal {-code}"

    async def open(self) -> None:
        """Open the channel; from here on frames come."""
        self._channel = await open_channel(self._sock, ToPool, self._frame_came, self._channel_closed)
        self._channel.on_writable = self._became_writable

    def send(self, frame: ToWorker) -> bool:
        """Send one frame; False if the worker cannot be reached any more. Raises FrameTooLarge."""
        if self._channel is None:
            return False
        try:
            self._channel.send(frame)
        except ChannelClosed:
            return False
        return True

    async def until_writable(self) -> None:
        """Wait until something large may be sent, or the process is gone."""
        while self.full and not self.gone.is_set():
            self._writable.clear()
            await self._writable.wait()

    async def kill(self, death: Death, *, dump: bool) -> None:
        """Kill the process group for this reason, its stacks dumped first where asked; the first reason stands."""
        if self.death is not None:
            return
        self.death = death
        self.state = WorkerState.DYING
        if dump:
            self.death = msgspec.structs.replace(death, stacks=await self._dump())
        self.watch.kill_group()

    def kill_now(self) -> None:
        """SIGKILL the process group without a word."""
        self.watch.kill_group()

    def dismiss(self) -> None:
        """SIGKILL the process group of a worker whose end is wanted."""
        self.expected = True
        self.watch.kill_group()

    def how_it_ended(self) -> Death:
        """Return why the process, which is gone, ended."""
        if self.death is not None:
            return self.death
        if self.expected:
            return Death(Cause.DRAINED, error=self.exit_text)
        if self.killed_from_outside:
            # whose code happened to run then is not to blame, unless it would not let go of the loop
            culprit = self.page.running() if self._silent_s > HELD_UP_S else 0
            return Death(Cause.KILLED, culprit, self.exit_text)
        return Death(Cause.DIED, self.page.running(), self.exit_text)

    def tell(self, events: Events, said: LogEvent) -> None:
        """Say in the log of the host what the worker said; an event that is not known is ``worker_said``."""
        event = Event(said.event) if said.event in EVENTS else Event.WORKER_SAID
        events.emit(event, **{"n": self.n, "pid": self.pid} | said.fields)

    def release(self) -> None:
        """Give back what the parent holds of an ended process."""
        self._exit_code, self._released = self._process.exitcode, True
        self.watch.close()
        if self._channel is not None:
            self._channel.close()
        else:
            self._sock.close()
        self.page.close()
        os.close(self._stacks_fd)
        # the fork server may be gone, or slow to say that it reaped the process; its end closes the rest
        with contextlib.suppress(ValueError):
            self._process.close()

    def _became_writable(self) -> None:
        self._writable.set()
        self._feed.put(ChannelWritable(self))

    async def _dump(self) -> str:
        """Ask for every thread's stack and wait, briefly, until it is written whole."""
        self.watch.signal(signal.SIGUSR1)
        deadline = time.monotonic() + STACKS_WAIT_S
        seen = 0
        while time.monotonic() < deadline and not self.watch.ended:
            await asyncio.sleep(STACKS_LOOK_S)
            size = os.fstat(self._stacks_fd).st_size
            if size and size == seen:
                break
            seen = size
        return os.pread(self._stacks_fd, STACKS_LIMIT_BYTES, 0).decode("utf-8", "replace")

    def _frame_came(self, frame: ToPool) -> None:
        match frame:
            case Ready():
                self.ready = frame
                self.became_ready.set()
            case Report():
                self.report = frame
            case Drained():
                self.drained_mono = time.monotonic()
        self._feed.put(FrameReceived(self, frame))

    def _channel_closed(self, reason: Exception | None) -> None:
        self._last_frame_read.set()
        if self.drained_mono is None and not self.watch.ended:
            # a worker that cannot be talked to is of no use; the pause lets one that fails say why on its stderr,
            # and one whose process has ended already be known by how it did: a reset comes before those news
            if isinstance(reason, ChannelError) and self.death is None:
                self.death = Death(Cause.DIED, self.page.running(), str(reason))
            asyncio.get_running_loop().call_later(LAST_WORDS_S, self._kill_if_alive)

    def _kill_if_alive(self) -> None:
        if not self.watch.ended:
            if self.death is None:
                self.death = Death(Cause.DIED, self.page.running(), "the worker closed its channel")
            self.watch.kill_group()

    def _process_ended(self) -> None:
        # first what tells of the end: whoever waits for it must not wait for ever because what follows fails
        self._last_words = asyncio.get_running_loop().create_task(self._hear_last_words())
        self._silent_s = self.page.beat_age_s()
        self.watch.kill_group()

    async def _hear_last_words(self) -> None:
        """Read the frames that left the process before its end, then report the end."""
        deadline = time.monotonic() + LAST_WORDS_S
        if self._channel is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._last_frame_read.wait(), LAST_WORDS_S)
        while self.exit_code is None and time.monotonic() < deadline:  # noqa: ASYNC110 (the fork server's to know)
            await asyncio.sleep(0.002)
        self.gone.set()
        self._writable.set()


class WorkerPlaced(msgspec.Struct, frozen=True):
    """A ready worker took the slot ``worker.n``."""

    #: it is usable, unless it has ended since
    worker: WorkerProcess


class FrameReceived(msgspec.Struct, frozen=True):
    """A worker sent a frame."""

    #: who sent it
    worker: WorkerProcess
    #: what it sent
    frame: ToPool


class ChannelWritable(msgspec.Struct, frozen=True):
    """The channel of a worker is not full any more."""

    #: who can be sent large frames again
    worker: WorkerProcess


class WorkerEnded(msgspec.Struct, frozen=True):
    """The process of a worker that held a slot is gone; its last frame was told before."""

    #: which
    worker: WorkerProcess
    #: how it ended
    death: Death


WorkerNews = WorkerPlaced | FrameReceived | ChannelWritable | WorkerEnded
