"""Several hosts on one database, each in a namespace of its own: what befalls one of them costs no message."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.crash.cluster.lane import ClusterLane
from loadtests.crash.fault import Fault, FaultKind, Party, Storm
from loadtests.crash.plan import Round, plan_talks
from loadtests.crash.run import run_rounds
from loadtests.network import Network, NoNamespaces
from tests.postgres_server import needing_it

SEED = 3
#: each while the one before lasts
FAULTS = (
    Fault(FaultKind.CUT_OFF, Party.GATEWAY, 0, 1.0),
    Fault(FaultKind.KILL, Party.WORKER_HOST, 0, 2.5),
    Fault(FaultKind.KILL, Party.DATABASE, 0, 6.0),
    Fault(FaultKind.PAUSE, Party.WORKER_HOST, 1, 7.0),
)


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        with Network() as made:
            yield made
    except NoNamespaces as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_faults_of_hosts_links_and_database_at_once_break_no_guarantee(tmp_path: Path, network: Network) -> None:
    talks = plan_talks(random.Random(SEED), SEED, sessions=8, messages=5, pace=4.0)
    with needing_it():
        found = run_rounds(
            [Round(SEED, Storm(FAULTS), talks, pause_s=2.0)],
            tmp_path,
            lanes=1,
            open_lane=lambda place: ClusterLane(place, worker_hosts=2, network=network),
        )
    assert [(one.number, problem) for one in found for problem in one.problems] == []
    assert [one.number for one in found if not one.fired] == []
    assert sum(one.answered for one in found) == sum(one.accepted for one in found) == 40
