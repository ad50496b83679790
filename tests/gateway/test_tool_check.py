"""Modules of tools that cannot be loaded are found before anything listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.tool_check import check_tool_modules
from shared.errors import SettingsError


def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    """Write a module where a process started here finds it; return its name."""
    (tmp_path / "mybot_tools.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "mybot_tools"


GOOD = "from worker.tools import tool\n\n@tool\ndef roll() -> str:\n    '''Roll.'''\n    return '4'\n"


def test_modules_with_tools_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_tool_modules([])
    assert check_tool_modules([module(tmp_path, monkeypatch, GOOD)]) == ()


def test_a_tool_without_a_docstring_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (warning,) = check_tool_modules([module(tmp_path, monkeypatch, GOOD.replace("    '''Roll.'''\n", ""))])
    assert "'roll'" in warning
    assert "docstring" in warning


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_library\n" + GOOD, "no_such_library"),
        ("x = 1\n", "has no function with @tool"),
        ("def f(:\n", "SyntaxError"),
        ("import os\nos._exit(7)\n", "it ended with status 7"),
        ("import sys\nsys.exit('closed today')\n", "closed today"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_one_line_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        check_tool_modules([module(tmp_path, monkeypatch, source)])
    assert refused.value.setting == "GATEHOUSE_TOOLS"
    assert said in str(refused.value)
    assert "mybot_tools" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_a_built_in_tool_has_is_refused_only_where_there_is_that_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(tmp_path, monkeypatch, GOOD.replace("roll", "fetch"))
    check_tool_modules([name])
    with pytest.raises(SettingsError, match="GATEHOUSE_TOOLS: two tools are named 'fetch'"):
        check_tool_modules([name], fetch_allow=["example.com"])


def test_a_module_that_never_loads_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, monkeypatch, "import time\ntime.sleep(3600)\n")
    with pytest.raises(SettingsError, match="takes more than"):
        check_tool_modules([name], within_s=0.5)
