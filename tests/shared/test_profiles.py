"""Profiles as the file of settings has them, and whom they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.profiles import Profiles
from shared.settings import Settings, parse_settings
from shared.when_busy import WhenBusy

FILE = """
[models.local]
model = "openai:qwen3"
base_url = "http://127.0.0.1:8080/v1"
context = 9000

[profiles.boss]
user = "U1"
when_busy = "interrupt"

[profiles.sales]
platform = ["slack", "telegram"]
account = "T1"
channel = "C1"
model = ["local", "offline"]
user_budget = "9000"
tools = ["todo", "search_*"]
mcp_servers = []

[profiles.slack]
platform = "slack"
"""


def read(tmp_path: Path, text: str, **values: str) -> Settings:
    path = tmp_path / "gatehouse.toml"
    path.write_text(text, "utf-8")
    return parse_settings({"GATEHOUSE_CONFIG": str(path)} | values)


@pytest.mark.parametrize(
    ("session", "user", "name"),
    [
        ("slack:T1:C1", "U1", "boss"),
        ("slack:T1:C1:171.2", "U2", "sales"),
        ("telegram:T1:C1", "U2", "sales"),
        ("slack:T1:C2", "U2", "slack"),
        ("slack:T1", "U2", "slack"),
        ("telegram:T2:C1", "U2", ""),
        ("", "", ""),
    ],
)
def test_the_first_profile_that_fits_holds(tmp_path: Path, session: str, user: str, name: str) -> None:
    assert read(tmp_path, FILE).profiles.name_of(session, user) == name


def test_what_a_profile_leaves_out_is_as_without_it(tmp_path: Path) -> None:
    settings = read(tmp_path, FILE, GATEHOUSE_HOUR_BUDGET="70000", GATEHOUSE_USER_BUDGET="50000/hour")
    sales, boss = settings.profiles.of("slack:T1:C1", "U2"), settings.profiles.of("slack:T1:C1", "U1")
    assert sales is not None
    assert boss is not None
    assert [model.name for model in sales.agent.models] == ["local", "offline"]
    assert (sales.agent.context_tokens, boss.agent.context_tokens) == (9000, settings.context_tokens)
    assert boss.agent.models == settings.models
    assert [(one.scope, one.limit) for one in sales.budgets.budgets] == [("user", 9000), ("hour", 70000)]
    assert settings.budgets.of("slack:T1:C1", "U2") == sales.budgets
    assert settings.budgets.of("telegram:x:y", "U2").budgets == settings.budgets.budgets
    assert settings.when_busy.mode("slack:T1:C1", "U1") is WhenBusy.INTERRUPT
    assert settings.when_busy.mode("slack:T1:C1", "U2") is WhenBusy.ENQUEUE
    assert sales.agent.tools.offers("search_web", "")
    assert not sales.agent.tools.offers("shell", "")
    assert not sales.agent.tools.offers("search_web", "shop")
    assert boss.agent.tools.offers("shell", "shop")


def test_a_key_that_only_a_profiles_model_has_is_a_secret(tmp_path: Path) -> None:
    file = '[models.x]\nmodel = "openai:x"\nkey_variable = "X_KEY"\n[profiles.a]\nmodel = "x"\n'
    assert "sk-very-secret" in read(tmp_path, file, X_KEY="sk-very-secret").secrets()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[profiles.a]\nplatform = "slak"', "profiles.a.platform: there is no 'slak'"),
        ('[profiles.a]\nmodle = "offline"', "profiles.a: there is no 'modle'; did you mean model?"),
        ('[profiles.a]\nmodel = "gpt"', "'gpt' is none of"),
        ('[profiles.a]\nwhen_busy = "wait"', "profiles.a.when_busy"),
        ('[profiles.a]\nuser_budget = "much"', "profiles.a.user_budget"),
        ('[profiles.a]\nmodel = "openai:x"\nsession_budget = "$1"', "openai:x has no price"),
    ],
)
def test_a_section_that_is_wrong_stops_the_start_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, text, OPENAI_API_KEY="sk-1")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_file_there_is_no_profile() -> None:
    assert parse_settings({}).profiles == Profiles()
