"""The import rules: who may know whom, and who may touch what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for side in ("gateway", "worker", "shared") for path in (ROOT / side).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def offences(importer: str, *forbidden: str, allowed: tuple[str, ...] = (), but: tuple[str, ...] = ()) -> list[str]:
    """Return the imports of forbidden packages by modules of ``importer``, those of ``but`` excepted."""
    return [
        f"{module_name(path)} imports {name}"
        for path in SOURCES
        if within(module_name(path), importer) and not within(module_name(path), *but)
        for name in imported(path)
        if within(name, *forbidden) and not within(name, *allowed) and not within(name + ".", *allowed)
    ]


def test_shared_imports_neither_side() -> None:
    assert offences("shared", "gateway", "worker", "loadtests", "tests") == []


def test_worker_never_imports_gateway() -> None:
    assert offences("worker", "gateway", "loadtests", "tests") == []


def test_gateway_imports_of_worker_the_pool_alone() -> None:
    names = [
        (module_name(path), name)
        for path in SOURCES
        if within(module_name(path), "gateway")
        for name in imported(path)
        if within(name, "worker") and not within(name, "worker.pool")
    ]
    assert names == []


def test_the_two_wings_never_import_each_other() -> None:
    assert offences("worker.pool", "worker.agent", "worker.tools") == []
    assert offences("worker.agent", "worker.pool") == []
    assert offences("worker.tools", "worker.pool") == []


def test_the_seam_imports_neither_wing() -> None:
    for seam in ("worker.channel", "worker.frames", "worker.shared_page", "worker.session_log"):
        assert offences(seam, "worker.pool", "worker.agent", "worker.tools") == []


@pytest.mark.parametrize("side", ["gateway", "worker", "shared"])
def test_database_drivers_stay_in_the_store(side: str) -> None:
    assert offences(side, "sqlite3", "apsw", "psycopg", but=("shared.store",)) == []


@pytest.mark.parametrize("side", ["gateway", "worker", "shared"])
def test_processes_are_made_by_the_supervisor_and_the_channel_alone(side: str) -> None:
    assert (
        offences(
            side, "multiprocess", but=("worker.pool.supervisor", "worker.pool.processes.spawn", "worker.forkserver")
        )
        == []
    )
    assert offences(side, "multiprocessing", "concurrent.futures.process") == []


def test_the_gateway_never_loads_a_model_sdk() -> None:
    assert offences("gateway", "anthropic", "openai") == []
    assert offences("worker.pool", "anthropic", "openai") == []
    assert offences("shared", "anthropic", "openai") == []


def test_a_worker_child_holds_no_store_and_no_settings() -> None:
    assert offences("worker.agent", "shared.store", "shared.settings") == []
    assert offences("worker.tools", "shared.store", "shared.settings") == []


def environment_reads(path: Path) -> list[str]:
    return [
        f"{module_name(path)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in {"environ", "getenv", "environb", "putenv"}
    ]


def test_the_environment_is_read_in_settings_alone() -> None:
    found = [read for path in SOURCES if module_name(path) != "shared.settings" for read in environment_reads(path)]
    assert found == []


def test_modules_and_functions_stay_small() -> None:
    grown = []
    for path in [*SOURCES, *sorted((ROOT / "loadtests").rglob("*.py"))]:
        text = path.read_text("utf-8")
        lines = sum(1 for line in text.splitlines() if line.strip())
        if lines > 400:
            grown.append(f"{path.relative_to(ROOT)} has {lines} lines")
        grown += [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {(node.end_lineno or 0) - node.lineno} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno > 45
        ]
    assert grown == []


def test_no_file_names_a_registry_host_or_a_path_of_one_machine() -> None:
    words = (
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "registry.npmjs" + ".org",
        "deb.debian" + ".org",
        "/opt/" + "pypi",
    )
    suffixes = {".py", ".toml", ".txt", ".md", ".html", ".js", ".css", ".example", ".yml", ""}
    named = []
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if any(part in {".venv", ".git", "data"} or part.endswith("_cache") for part in inside):
            continue
        if path.is_file() and path.suffix in suffixes:
            text = path.read_text("utf-8", "replace")
            named += [f"{path.relative_to(ROOT)} names {word}" for word in words if word in text]
    assert named == []
