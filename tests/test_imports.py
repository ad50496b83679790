"""The import rules: who may know whom, and who may touch what."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for side in ("gateway", "worker", "shared") for path in (ROOT / side).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.append(node.module or "")
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


@functools.cache
def arrows() -> dict[str, frozenset[str]]:
    """Return which modules each module imports; a name taken from a package is an arrow to the module that it is."""
    modules = {module_name(path) for path in SOURCES}
    found: dict[str, frozenset[str]] = {}
    for path in SOURCES:
        names = set(imported(path)) & modules
        # "from package import module" names the package as well, which it does not need
        needless = {name.rpartition(".")[0] for name in names} - {*direct(path)}
        found[module_name(path)] = frozenset(names - needless - {module_name(path)})
    return found


def direct(path: Path) -> Iterator[str]:
    """Yield the packages and modules that something other than a module is taken from, or that are imported whole."""
    modules = {module_name(source) for source in SOURCES}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and any(f"{node.module}.{a.name}" not in modules for a in node.names):
            yield node.module or ""


def circles() -> list[list[str]]:
    """Return the circles of imports: the strongly connected modules (Tarjan), each sorted."""
    graph, index, low = arrows(), dict[str, int](), dict[str, int]()
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.append(sorted(members))

    for name in graph:
        if name not in index:
            visit(name)
    return found


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


#: the rooms from the ground up, as docs/architecture.md draws them: a module imports its own floor and lower ones
FLOORS: tuple[tuple[str, ...], ...] = (
    ("shared",),
    (
        "worker.os_processes",
        "worker.shared_page",
        "worker.frames",
        "worker.mcp_server",
        "worker.channel",
        "worker.session_log",
    ),
    ("worker.tools", "worker.mcp_config"),
    ("worker.agent",),
    ("worker.forkserver", "worker.library", "worker.live_check", "worker.tool_list"),
    ("worker.pool", "worker.run_agent", "worker.replay"),
    ("worker.__main__", "worker.serve", "worker.host", "gateway"),
)


def floor_of(module: str) -> int:
    return next(
        (floor for floor, rooms in enumerate(FLOORS) if within(module, *rooms)),
        len(FLOORS) if module == "worker" else -1,
    )


def test_every_module_stands_in_a_room_of_the_drawing() -> None:
    assert [name for name in arrows() if floor_of(name) < 0] == []


def test_no_arrow_runs_against_the_drawing() -> None:
    against = [
        f"{name} imports {other}"
        for name, others in arrows().items()
        for other in sorted(others)
        if floor_of(other) > floor_of(name)
    ]
    assert against == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


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
        for node in ast.walk(tree_of(path))
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
        if any(part in {".git", "data"} or part.startswith(".venv") or part.endswith("_cache") for part in inside):
            continue
        if path.is_file() and path.suffix in suffixes:
            text = path.read_text("utf-8", "replace")
            named += [f"{path.relative_to(ROOT)} names {word}" for word in words if word in text]
    assert named == []
