"""What the first line of a start tells, and what it reminds of."""

from __future__ import annotations

from pathlib import Path

from gateway.start_report import hints, start_fields
from loadtests.gateway_process import GatewayProcess
from shared.settings import parse_settings


def test_the_first_line_names_model_platforms_directory_and_address(tmp_path: Path) -> None:
    settings = {
        "GATEHOUSE_WORKERS": "0",
        "ANTHROPIC_API_KEY": "sk-ant-test",
        "TELEGRAM_BOT_TOKEN": "1:A",
        "TELEGRAM_SECRET_TOKEN": "s",
        "GATEHOUSE_API_KEYS": "a-long-random-key",
    }
    with GatewayProcess(tmp_path, settings) as gateway:
        started = gateway.wait_for("started")
        hint = gateway.wait_for("setting_hint")["hint"]
    told = {name: started[name] for name in ("model", "platforms", "data_dir")}
    assert told == {"model": "offline", "platforms": "telegram", "data_dir": str(tmp_path)}
    assert started["url"] == f"http://127.0.0.1:{started['port']}"
    assert hint.startswith("ANTHROPIC_API_KEY is set and GATEHOUSE_MODEL is not, so the offline model answers")


def test_a_key_is_reminded_of_only_while_no_model_was_chosen() -> None:
    keys = {"OPENAI_API_KEY": "sk-test", "ANTHROPIC_API_KEY": ""}
    assert [hint.partition(" ")[0] for hint in hints(parse_settings(keys))] == ["OPENAI_API_KEY"]
    assert list(hints(parse_settings({**keys, "GATEHOUSE_MODEL": "offline"}))) == []
    chain = parse_settings({**keys, "GATEHOUSE_MODEL": "openai:gpt-5,offline"})
    assert start_fields(chain)["model"] == "openai:gpt-5,offline"
    assert list(hints(chain)) == []


def test_secrets_of_one_value_and_a_proxy_that_is_not_used_are_told() -> None:
    names = ("SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN", "TELEGRAM_SECRET_TOKEN", "TELEGRAM_BOT_TOKEN")
    settings = dict(zip(names, ("one-secret", "xoxb-1", "one-secret", "1:A"), strict=True))
    proxy, secrets = hints(parse_settings({**settings, "ALL_PROXY": "socks5h://127.0.0.1:9050"}))
    assert proxy.startswith("ALL_PROXY names a SOCKS proxy")
    assert {name for name in names if name in secrets} == {"SLACK_SIGNING_SECRET", "TELEGRAM_SECRET_TOKEN"}
    assert "one-secret" not in secrets


def test_a_data_directory_that_every_user_may_write_into_is_told(tmp_path: Path) -> None:
    settings = parse_settings({"GATEHOUSE_DATA_DIR": str(tmp_path)})
    assert list(hints(settings)) == []
    tmp_path.chmod(0o777)
    (hint,) = hints(settings)
    assert str(tmp_path) in hint
