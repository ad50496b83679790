"""The planted faults: each has a place in the code of now, and tests to notice it."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.mutants.fault import Fault
from loadtests.mutants.faults import FAULTS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_every_fault_has_its_place_and_its_tests(fault: Fault) -> None:
    text = (ROOT / fault.file).read_text("utf-8")
    assert text.count(fault.before) == 1
    assert fault.before != fault.after
    assert [test for test in fault.tests if not (ROOT / test).exists()] == []


def test_there_are_forty_faults_and_none_twice() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
