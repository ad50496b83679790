"""What befalls a host or the database in one round of a cluster."""

from __future__ import annotations

import enum

import msgspec


class Party(enum.StrEnum):
    """Whom a fault befalls."""

    GATEWAY = "gateway"
    WORKER_HOST = "worker host"
    DATABASE = "database"
    SEVERAL = "several"


class FaultKind(enum.StrEnum):
    """What a fault is."""

    KILL = "kill"  #: SIGKILL to every process of it; it is started again at once
    KILL_PARENT = "kill parent"  #: SIGKILL to its first process alone; what that leaves behind has to notice
    DRAIN = "drain"  #: SIGTERM, and a start when it has ended
    PAUSE = "pause"  #: SIGSTOP to every process of it, SIGCONT after the lease of the host has ended
    CUT_OFF = "cut off"  #: its link goes down, and up again
    OVERLAPPING = "overlapping"  #: several of these, each while others last


#: how long a pause and a cut last, and how long the database is away, in seconds; the lease of a host is 10
LASTS_S = {FaultKind.PAUSE: 13.0, FaultKind.CUT_OFF: 20.0}
DATABASE_AWAY_S = 2.0


class Fault(msgspec.Struct, frozen=True, tag=True):
    """One fault, ``after_s`` seconds into its round; ``nth`` chooses among the hosts of its party."""

    kind: FaultKind
    party: Party
    nth: int
    after_s: float

    @property
    def name(self) -> str:
        """The kind, as the matrix names it."""
        return self.kind.value

    @property
    def moment(self) -> str:
        """When it comes, in words."""
        return f"after {self.after_s:.2f} s"

    @property
    def victim(self) -> Party:
        """Whom it befalls, as the matrix names it."""
        return self.party

    @property
    def lasts_s(self) -> float:
        """How long it lasts, in seconds."""
        return DATABASE_AWAY_S if self.party is Party.DATABASE else LASTS_S.get(self.kind, 0.0)

    @property
    def loses_frames(self) -> bool:
        """Whether what is not committed is lost with it: always, as another host goes on."""
        return True

    @property
    def ends(self) -> int:
        """How many first processes of hosts it ends."""
        killing = {FaultKind.KILL, FaultKind.KILL_PARENT, FaultKind.DRAIN}
        return int(self.kind in killing and self.party is not Party.DATABASE)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Itself: what a round with one fault and one with many have in common."""
        return (self,)


class Storm(msgspec.Struct, frozen=True, tag=True):
    """Several faults in one round, in the order of their moments."""

    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        """What the matrix names it."""
        return FaultKind.OVERLAPPING.value

    @property
    def moment(self) -> str:
        """When it comes, in words."""
        return f"in {max(fault.after_s for fault in self.faults):.0f} s"

    @property
    def victim(self) -> Party:
        """Whom it befalls, as the matrix names it."""
        return Party.SEVERAL

    @property
    def loses_frames(self) -> bool:
        """Whether what is not committed is lost with it."""
        return True

    @property
    def ends(self) -> int:
        """How many first processes of hosts it ends."""
        return sum(fault.ends for fault in self.faults)
