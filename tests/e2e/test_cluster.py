"""Several hosts on one database, each in a namespace of its own: what befalls one of them costs no message."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.crash.cluster.lane import ClusterLane
from loadtests.crash.cluster.plan import plan_faults
from loadtests.crash.fault import FaultKind, Party
from loadtests.crash.run import run_rounds
from loadtests.network import Network, NoNamespaces
from tests.postgres_server import needing_it

SEED = 3
CELLS = [
    (FaultKind.KILL, Party.WORKER_HOST),
    (FaultKind.CUT_OFF, Party.GATEWAY),
    (FaultKind.KILL, Party.DATABASE),
]


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        with Network() as made:
            yield made
    except NoNamespaces as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_a_dead_host_a_cut_link_and_a_killed_database_break_no_guarantee(tmp_path: Path, network: Network) -> None:
    with needing_it():
        found = run_rounds(
            plan_faults(SEED, CELLS),
            tmp_path,
            lanes=1,
            open_lane=lambda place: ClusterLane(place, worker_hosts=1, network=network),
        )
    assert [(one.number, problem) for one in found for problem in one.problems] == []
    assert [one.number for one in found if not one.fired] == []
    assert sum(one.answered for one in found) == sum(one.accepted for one in found) == 32 * len(found)
