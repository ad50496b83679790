"""The simulation behind the plan of docs/scaling.md: it says no where a plan is too small."""

from __future__ import annotations

import pytest

from loadtests.scaling import Measured, Plan, show, simulate

MEASURED = Measured(0.0007, 0.0009, 8000, 11, 9, 4, 0.001, 0.001)


def test_messages_wait_where_their_databases_have_too_few_cores(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(Plan(1_000_000, 2_000, 1, 4), MEASURED) < 0.01
    assert simulate(Plan(1_000_000, 2_000, 1, 1), MEASURED) > 1
    assert show(Plan(1_000_000, 2_000, 1, 4), MEASURED)
    assert not show(Plan(1_000_000, 2_000, 1, 1), MEASURED)
    assert "DOES NOT HOLD" in capsys.readouterr().out


def test_databases_that_share_the_sessions_share_the_load() -> None:
    assert simulate(Plan(1_000_000, 4_000, 1, 2), MEASURED) > 10 * simulate(Plan(1_000_000, 4_000, 4, 2), MEASURED)
