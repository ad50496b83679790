"""Settings: defaults, sources, and one clear line for every mistake."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.profiles import ProfileBusyRules
from shared.proxies import Proxies
from shared.settings import KNOWN_NAMES, load_settings, parse_settings, scrub_environment

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_nothing_set_gives_the_documented_defaults() -> None:
    settings = parse_settings({})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert [model.provider for model in settings.models] == ["offline"]
    assert (settings.workers, settings.turns_per_worker, settings.spares) == (os.cpu_count(), 32, 1)
    assert settings.waiting_turns == 256
    assert (settings.api_timeout_s, settings.stall_timeout_s) == (300, 60)
    assert (settings.turn_timeout_s, settings.kill_grace_s, settings.heartbeat_timeout_s) == (900, 5, 5)
    assert (settings.worker_memory_mib, settings.max_attempts, settings.when_busy) == (1024, 3, ProfileBusyRules())
    assert (settings.todo_cache_size, settings.todo_cache_ttl_s, settings.log_flush_interval_s) == (10_000, 3600, 0.5)
    assert (settings.inbox_limit, settings.data_dir) == (10_000, Path("data"))
    assert settings.platforms == {}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"PORT": "eighty"}, "PORT"),
        ({"PORT": "65536"}, "PORT"),
        ({"GATEHOUSE_HOST": "0.0.0.0"}, "GATEHOUSE_HOST"),
        ({"GATEHOUSE_MODEL": "gpt-5"}, "GATEHOUSE_MODEL"),
        ({"GATEHOUSE_MODEL": "anthropic:"}, "GATEHOUSE_MODEL"),
        ({"GATEHOUSE_MODEL": "anthropic:claude"}, "ANTHROPIC_API_KEY"),
        ({"GATEHOUSE_MODEL": "offline,openai:gpt-5"}, "OPENAI_API_KEY"),
        ({"GATEHOUSE_MODEL": "openai:m", "OPENAI_BASE_URL": "localhost:11434"}, "OPENAI_BASE_URL"),
        ({"GATEHOUSE_WORKERS": "-1"}, "GATEHOUSE_WORKERS"),
        ({"GATEHOUSE_TURNS_PER_WORKER": "0"}, "GATEHOUSE_TURNS_PER_WORKER"),
        ({"GATEHOUSE_WAITING_TURNS": "-1"}, "GATEHOUSE_WAITING_TURNS"),
        ({"GATEHOUSE_API_TIMEOUT": "soon"}, "GATEHOUSE_API_TIMEOUT"),
        ({"GATEHOUSE_TURN_TIMEOUT": "nan"}, "GATEHOUSE_TURN_TIMEOUT"),
        ({"GATEHOUSE_CONTEXT_TOKENS": "999"}, "GATEHOUSE_CONTEXT_TOKENS"),
        ({"GATEHOUSE_KILL_GRACE": "-1"}, "GATEHOUSE_KILL_GRACE"),
        ({"GATEHOUSE_LOG_FLUSH_INTERVAL": "0.1"}, "GATEHOUSE_LOG_FLUSH_INTERVAL"),
        ({"GATEHOUSE_WHEN_BUSY": "panic"}, "GATEHOUSE_WHEN_BUSY"),
        ({"GATEHOUSE_WHEN_BUSY": "slack="}, "GATEHOUSE_WHEN_BUSY"),
        ({"GATEHOUSE_WHEN_BUSY": "slak=steer"}, "GATEHOUSE_WHEN_BUSY"),
        ({"GATEHOUSE_WHEN_BUSY": "steer,reject"}, "GATEHOUSE_WHEN_BUSY"),
        ({"GATEHOUSE_WHEN_BUSY": "slack=steer,slack=steer"}, "GATEHOUSE_WHEN_BUSY"),
        ({"GATEHOUSE_GATHER": "-1"}, "GATEHOUSE_GATHER"),
        ({"GATEHOUSE_SYSTEM_PROMPT": "@/no/such/file"}, "GATEHOUSE_SYSTEM_PROMPT"),
        ({"GATEHOUSE_MCP_CONFIG": "/no/such/file"}, "GATEHOUSE_MCP_CONFIG"),
        ({"GATEHOUSE_MCP_CONFIG": "~nobody-here/mcp.json"}, "GATEHOUSE_MCP_CONFIG"),
        ({"GATEHOUSE_CONFIG": "~nobody-here/models.toml"}, "GATEHOUSE_CONFIG"),
        ({"GATEHOUSE_DATA_DIR": "~nobody-here"}, "GATEHOUSE_DATA_DIR"),
        ({"GATEHOUSE_BACKUP_DIR": "~nobody-here"}, "GATEHOUSE_BACKUP_DIR"),
        ({"GATEHOUSE_SYSTEM_PROMPT": "@~nobody-here/prompt"}, "GATEHOUSE_SYSTEM_PROMPT"),
        ({"GATEHOUSE_TOOLS": "my-bot/tools.py"}, "GATEHOUSE_TOOLS"),
        ({"GATEHOUSE_SYSTEM_PROMPT": "gr\udcfc\udcdfe"}, "GATEHOUSE_SYSTEM_PROMPT"),  # Latin-1
        ({"GATEHOUSE_DATA_DIR": "/srv/\udce4"}, "GATEHOUSE_DATA_DIR"),
        ({"HTTPS_PROXY": "http://"}, "HTTPS_PROXY"),
        ({"http_proxy": "ftp://proxy:21"}, "http_proxy"),
        ({"all_proxy": "http://user:secret@proxy:port"}, "all_proxy"),
        ({"GATEHOUSE_ALLOW": "12345"}, "GATEHOUSE_ALLOW"),
        ({"GATEHOUSE_ALLOW": "slack:*,telgram:5"}, "GATEHOUSE_ALLOW"),
        ({"DATABASE_URL": "mysql://db/app"}, "DATABASE_URL"),
        ({"SLACK_SIGNING_SECRET": "s" * 32}, "SLACK_BOT_TOKEN"),
        ({"TELEGRAM_SECRET_TOKEN": "s" * 32}, "TELEGRAM_BOT_TOKEN"),
        ({"TELEGRAM_BOT_TOKEN": "token", "TELEGRAM_SECRET_TOKEN": "s" * 32}, "TELEGRAM_BOT_TOKEN"),
        ({"TELEGRAM_BOT_TOKEN": "1:token", "TELEGRAM_SECRET_TOKEN": "two words"}, "TELEGRAM_SECRET_TOKEN"),
        ({"STANDARD_WEBHOOK_SECRET": WHSEC}, "STANDARD_WEBHOOK_REPLY_URL"),
        (
            {"STANDARD_WEBHOOK_SECRET": "whsec_abc", "STANDARD_WEBHOOK_REPLY_URL": "http://127.0.0.1:1/"},
            "STANDARD_WEBHOOK_SECRET",
        ),
        ({"STANDARD_WEBHOOK_SECRET": WHSEC, "STANDARD_WEBHOOK_REPLY_URL": "ftp://x"}, "STANDARD_WEBHOOK_REPLY_URL"),
        ({"GATEHOUSE_WORKER": "2"}, "GATEHOUSE_WORKER"),
        ({"GATEHOUSE_FETCH_ALLOW": "https://example.com"}, "GATEHOUSE_FETCH_ALLOW"),
        ({"GATEHOUSE_FETCH_ALLOW": "example.com/docs"}, "GATEHOUSE_FETCH_ALLOW"),
        ({"GATEHOUSE_FETCH_ALLOW": "example.com, *example.com"}, "GATEHOUSE_FETCH_ALLOW"),
        ({"GATEHOUSE_FETCH_ALLOW": "example.com:70000"}, "GATEHOUSE_FETCH_ALLOW"),
        ({"GATEHOUSE_FETCH_ALLOW": "bücher.example"}, "GATEHOUSE_FETCH_ALLOW"),
        ({"GATEHOUSE_FETCH_ALLOW": "[::::]"}, "GATEHOUSE_FETCH_ALLOW"),
        ({"GATEHOUSE_FETCH_ALLOW": "a" * 64 + ".example"}, "GATEHOUSE_FETCH_ALLOW"),
    ],
)
def test_a_mistake_is_refused_in_one_line_that_names_the_setting(values: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(values)
    assert refused.value.setting == named
    assert str(refused.value).startswith(f"{named}: ")
    assert "secret@" not in str(refused.value)
    str(refused.value).encode()
    assert "\n" not in str(refused.value)


def test_a_key_in_the_place_of_a_url_is_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings({"GATEHOUSE_MODEL": "openai:m", "OPENAI_BASE_URL": "sk-proj-abcdefghij"})
    assert "sk-proj" not in str(refused.value)


def test_replies_are_posted_to_the_url_as_it_is_written() -> None:
    url = "https://example.com/replies/"
    settings = parse_settings({"STANDARD_WEBHOOK_SECRET": WHSEC, "STANDARD_WEBHOOK_REPLY_URL": url})
    (standard,) = settings.platforms.values()
    assert getattr(standard, "reply_url", "") == url


def test_a_misspelt_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match="did you mean GATEHOUSE_API_TIMEOUT"):
        parse_settings({"GATEHOUSE_API_TIMEOUTS": "5"})


def test_a_list_of_models_is_a_chain_in_its_order() -> None:
    settings = parse_settings(
        {
            "GATEHOUSE_MODEL": "anthropic:a, openai:b:7b ,offline",
            "ANTHROPIC_API_KEY": "k1",
            "OPENAI_BASE_URL": "http://h/v1/",
        }
    )
    assert [(model.provider, model.model) for model in settings.models] == [
        ("anthropic", "a"),
        ("openai", "b:7b"),
        ("offline", "offline"),
    ]
    assert settings.models[1].base_url == "http://h/v1"


def test_the_mode_of_a_busy_session_is_that_of_the_longest_part_of_its_key() -> None:
    given = "steer, slack=enqueue, slack:T1:C1=reject, telegram:123:42=interrupt"
    rules = parse_settings({"GATEHOUSE_WHEN_BUSY": given}).when_busy
    modes = {
        "standard:default:x": "steer", "slack:T1:C2:17.5": "enqueue", "slack:T1:C1": "reject",
        "slack:T1:C1:17.5": "reject", "slack:T1:C11": "enqueue", "telegram:123:42": "interrupt",
        "telegram:123:421": "steer", "telegram:123:42:7": "interrupt", "api:default:a:b": "steer",
    }  # fmt: skip
    assert {session: rules.mode(session) for session in modes} == modes


def test_hosts_that_may_be_fetched_are_named_one_by_one_or_by_their_domain() -> None:
    hosts = "example.com, *.example.com:8080,*,10.0.0.7:8080,[::1]:80,xn--bcher-kva.example"
    assert parse_settings({"GATEHOUSE_FETCH_ALLOW": hosts}).fetch_allow == tuple(hosts.replace(" ", "").split(","))
    assert parse_settings({}).fetch_allow == ()


def test_every_secret_is_known_so_that_logs_can_hide_it() -> None:
    settings = parse_settings(
        {
            "GATEHOUSE_API_KEYS": "key-one,key-two",
            "GATEHOUSE_MODEL": "openai:m",
            "OPENAI_API_KEY": "sk-secret",
            "SLACK_SIGNING_SECRET": "slack-secret",
            "SLACK_BOT_TOKEN": "xoxb-secret",
            "TELEGRAM_BOT_TOKEN": "1:telegram",
            "TELEGRAM_SECRET_TOKEN": "tg-secret",
            "STANDARD_WEBHOOK_SECRET": WHSEC,
            "STANDARD_WEBHOOK_REPLY_URL": "http://127.0.0.1:1/r",
        }
    )
    hidden = {"key-one", "key-two", "sk-secret", "slack-secret", "xoxb-secret", "1:telegram", "tg-secret", WHSEC}
    assert hidden <= set(settings.secrets())


def test_the_environment_stands_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=9001\nGATEHOUSE_WORKERS=3\n")
    monkeypatch.setenv("PORT", "9002")
    settings = load_settings(file)
    assert (settings.port, settings.workers) == (9002, 3)


def test_proxies_are_read_as_curl_reads_them() -> None:
    other = "http://me:pass-word@other:1"
    settings = parse_settings({"HTTPS_PROXY": "proxy:3128", "all_proxy": other, "NO_PROXY": ".corp,10.0.0.7"})
    of = settings.proxies.of
    assert of("https", "api.openai.com") == "http://proxy:3128"
    assert of("http", "api.openai.com") == other
    assert {of("http", host) for host in ("llm.corp", "10.0.0.7", "127.0.0.1", "localhost", "::1")} == {None}
    assert "pass-word" in settings.secrets()
    again = parse_settings(settings.proxies.variables()).proxies
    assert again == settings.proxies
    assert parse_settings({"ALL_PROXY": "socks5://proxy:1"}).proxies.unused == ("ALL_PROXY",)
    assert parse_settings({"HTTP_PROXY": "http://proxy", "NO_PROXY": "*"}).proxies.of("http", "a.test") is None


def test_children_inherit_model_keys_but_no_platform_token(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = dict(os.environ)
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    try:
        scrub_environment(Proxies({"http": "http://proxy:1"}, "localhost"))
        assert (os.environ["http_proxy"], os.environ["no_proxy"]) == ("http://proxy:1", "localhost")
        assert "SLACK_BOT_TOKEN" not in os.environ
        assert "SOMETHING_ELSE" not in os.environ
        assert os.environ["OPENAI_API_KEY"] == "sk-secret"
        assert "PATH" in os.environ
    finally:
        os.environ.clear()
        os.environ.update(saved)


NAMES = st.sampled_from([*sorted(KNOWN_NAMES), "PORT", "DATABASE_URL"])


@hypothesis_settings(max_examples=300)
@given(st.dictionaries(NAMES, st.text(max_size=12), max_size=4))
def test_any_text_in_any_setting_is_accepted_or_refused_by_name(values: dict[str, str]) -> None:
    refusal: SettingsError | None = None
    try:
        parse_settings(values)
    except SettingsError as error:
        refusal = error
    assert refusal is None or (refusal.setting in str(refusal) and len(str(refusal).splitlines()) == 1)


ROOT = Path(__file__).parents[2]


def test_every_setting_is_told_of_in_the_readme() -> None:
    table = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in sorted(KNOWN_NAMES) if f"`{name}`" not in table] == []


def test_every_line_of_the_example_is_a_setting_that_is_accepted() -> None:
    text = (ROOT / ".env.example").read_text("utf-8")
    example = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert {name for name in example if name.startswith("GATEHOUSE_")} == KNOWN_NAMES
    complete = {
        name: value
        for name, value in example.items()
        if re.fullmatch(r"GATEHOUSE_(?!SYSTEM|MCP|BACKUP_DIR).*|PORT", name)
    }
    assert len(complete) > 8
    assert parse_settings({**complete, "ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}).port == 8000
