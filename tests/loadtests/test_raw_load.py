"""The raw load generator and the bare route, one against the other; and how figures are put."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from loadtests.bench.__main__ import Results, main, names
from loadtests.measuring import figure, interleaved, percentile, pin, print_table, pss_bytes
from loadtests.program import ROOT, Program, running_program
from loadtests.raw_load import burst, wire_bytes
from loadtests.sender import Sender


@pytest.fixture(scope="module")
def bare_route() -> Iterator[Program]:
    with running_program("loadtests.bare_route") as program:
        yield program


async def test_a_burst_sends_every_request_once(bare_route: Program) -> None:
    sender = Sender()
    requests = [wire_bytes(sender.standard("s", "hello")) for _ in range(200)]
    result = await burst(bare_route.url, requests, 16)
    assert result.failures == 0
    assert len(result.latencies_s) == 200
    assert result.rate > 0


async def test_a_burst_counts_what_was_refused(bare_route: Program) -> None:
    good, other = Sender().standard("s", "hello"), Sender().standard("s", "other")
    forged = wire_bytes(good).replace(good.body, other.body)
    result = await burst(bare_route.url, [wire_bytes(good), forged, forged], 2)
    assert result.failures == 2


def test_the_bare_route_verifies_and_parses(bare_route: Program) -> None:
    good = Sender().standard("s", "hello")
    assert httpx2.post(bare_route.url + good.path, content=good.body, headers=good.headers).status_code == 200
    assert httpx2.post(bare_route.url + good.path, content=good.body).status_code == 401


async def test_contenders_are_measured_in_turn() -> None:
    order: list[str] = []

    async def one() -> float:
        order.append("one")
        return 1.0

    async def two() -> float:
        order.append("two")
        return 2.0

    assert await interleaved(2, {"one": one, "two": two}) == {"one": [1.0, 1.0], "two": [2.0, 2.0]}
    assert order == ["one", "two", "one", "two"]


def test_figures_are_put_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a title", "ms", {"theirs": [1.0, 2.0, 3.0], "ours": [0.5]})
    printed = capsys.readouterr().out
    assert "theirs           2 ms          1.00 x  1 to 3" in printed
    assert "ours           0.5 ms          0.25 x" in printed
    assert (figure(12345.6), figure(12.34), figure(0.01234)) == ("12,346", "12.3", "0.0123")
    assert [percentile(range(1, 101), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_a_process_is_pinned_with_its_threads(bare_route: Program) -> None:
    core = min(os.sched_getaffinity(0))
    assert pin(core, bare_route.pid)
    assert os.sched_getaffinity(bare_route.pid) == {core}
    assert not pin(100_000, bare_route.pid)
    assert pss_bytes(bare_route.pid) > 0


def test_benchmarks_are_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"ack", "dispatch", "replacement"} <= set(names())
    assert main(["nonsense"]) == 2
    assert "there is no benchmark nonsense" in capsys.readouterr().err


def test_the_ack_benchmark_prints_both_sides_and_writes_every_round(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "loadtests.bench", "ack"],
        check=False,
        cwd=ROOT,
        env=os.environ | {"BENCH_REQUESTS": "200", "BENCH_ROUNDS": "2", "BENCH_RESULTS": str(tmp_path / "r.json")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "bare route, no store" in run.stdout
    assert "gateway" in run.stdout
    results = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=Results)
    ack = results.benchmarks["ack"]
    assert ack.status == 0
    assert [table.unit for table in ack.tables] == ["req/s", "us", "ms", "ms"]
    for table in ack.tables:
        assert list(table.rows) == ["bare route, no store", "gateway"]
        for row in table.rows.values():
            assert len(row.samples) == 2
            assert min(row.samples) > 0
    assert results.machine["python"] == platform.python_version()
