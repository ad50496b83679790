"""LiteLLM's proxy: its mocks of answers and errors, and llama.cpp behind it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.program import free_port
from tests.e2e.bot import Bot
from tests.real.dice import PROMPT
from tests.real.endurance import (
    a_stop_in_mid_stream_frees_the_slot,
    an_outage_delays_and_loses_nothing,
    eight_sessions_at_once_are_all_answered,
    ten_turns_of_one_session,
)
from tests.real.foreign import ForeignServer, installed

KEY = "sk-of-the-tests-of-real-servers"
MOCK = "Hello from the mock."


def configuration(llama: str) -> dict[str, Any]:
    """Return what the proxy serves; JSON is YAML."""
    mocks: dict[str, dict[str, Any]] = {
        "mock": {"mock_response": MOCK},
        "limited": {"mock_response": "litellm.RateLimitError"},
        "broken": {"mock_response": "litellm.InternalServerError"},
        "overflow": {"mock_response": "litellm.ContextWindowExceededError"},
        "llama": {"api_base": f"{llama}/v1"},
        "dice": {"api_base": f"{llama}/v1", "temperature": 0, "logit_bias": {"106": 8}},
        "stories": {"api_base": f"{llama}/v1", "extra_body": {"ignore_eos": True}},
        "dead": {"api_base": f"http://127.0.0.1:{free_port()}/v1"},
    }
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": "x", **mock}}
        for name, mock in mocks.items()
    ]
    return {
        "model_list": models,
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"num_retries": 0, "request_timeout": 60},
        "router_settings": {"num_retries": 0},
    }


@pytest.fixture(scope="module")
def proxy(llama: ForeignServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignServer]:
    program, directory, port = installed("litellm") / "bin" / "litellm", tmp_path_factory.mktemp("litellm"), free_port()
    (directory / "config.yaml").write_text(json.dumps(configuration(llama.url)))
    command: list[str | Path] = [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with ForeignServer(command, port, "/health/liveliness", directory, environment) as server:
        yield server


@contextlib.contextmanager
def gateway(directory: Path, proxy: ForeignServer, *models: str, **settings: str) -> Iterator[GatewayProcess]:
    """Start a gateway whose chain is these models of the proxy, each ``provider:model``."""
    sections = []
    for model in models:
        url = proxy.url + ("/v1" if model.startswith("openai:") else "")
        sections.append(f'[models."{model}"]\nbase_url = "{url}"\nkey_variable = "PROXY_KEY"\noutput_limit = 100\n')
    (directory / "gatehouse.toml").write_text("\n".join(sections))
    environment = {
        "GATEHOUSE_CONFIG": str(directory / "gatehouse.toml"),
        "GATEHOUSE_MODEL": ",".join(models),
        "PROXY_KEY": KEY,
        "GATEHOUSE_WORKERS": "1",
        "GATEHOUSE_SYSTEM_PROMPT": "You tell stories.",
        **settings,
    }
    with GatewayProcess(directory, environment) as running:
        yield running


def ask(gateway: GatewayProcess, **fields: Any) -> httpx2.Response:
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": "Hello!"}], **fields}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=120)


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_its_answers_arrive_whole_and_streamed(proxy: ForeignServer, tmp_path: Path, wire: str) -> None:
    with gateway(tmp_path, proxy, f"{wire}:mock") as running:
        assert ask(running).json()["choices"][0]["message"]["content"] == MOCK
        streamed = ask(running, stream=True).text
        pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        assert "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces) == MOCK
        assert not running.events("model_failed")


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_real_model_behind_it_answers(proxy: ForeignServer, tmp_path: Path, wire: str) -> None:
    with gateway(tmp_path, proxy, f"{wire}:llama") as running:
        answer = ask(running)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
        assert answer.json()["usage"]["completion_tokens"] > 0


def test_a_chain_passes_its_errors_and_ends_with_an_answer(proxy: ForeignServer, tmp_path: Path) -> None:
    names = [f"openai:{name}" for name in ("limited", "broken", "dead", "mock")]
    with gateway(tmp_path, proxy, *names) as running:
        assert ask(running).json()["choices"][0]["message"]["content"] == MOCK
        problems = {row["model"]: row["problem"] for row in running.events("model_failed")}
        assert problems.keys() == set(names[:3])


def test_a_real_model_behind_it_calls_a_tool(proxy: ForeignServer, tmp_path: Path) -> None:
    settings = {"GATEHOUSE_SYSTEM_PROMPT": PROMPT, "GATEHOUSE_TOOLS": "tests.real.dice"}
    with gateway(tmp_path, proxy, "openai:dice", **settings) as running:
        answer = ask(running, messages=[{"role": "user", "content": "Roll a die with 12 sides."}])
        assert answer.json()["choices"][0]["message"]["content"].startswith("The die shows 9"), answer.text


def test_an_overflow_is_told_as_one(proxy: ForeignServer, tmp_path: Path) -> None:
    with gateway(tmp_path, proxy, "openai:overflow") as running:
        answer = ask(running)
        assert answer.status_code != 200
        assert answer.json()["error"]["code"] == "context_length_exceeded", answer.text
        assert len(running.events("model_failed")) <= 2


@pytest.fixture(scope="module")
def teller(proxy: ForeignServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    """A bot whose model tells stories, by way of the proxy."""
    directory = tmp_path_factory.mktemp("teller")
    settings = {"GATEHOUSE_STALL_TIMEOUT": "40", "GATEHOUSE_API_KEYS": "a-key-for-the-tests-of-real-servers"}
    with (
        running_platform() as platform,
        gateway(directory, proxy, "openai:stories", **(platform.environment() | settings)) as running,
        contextlib.closing(Bot(running, platform, None)) as bot,
    ):
        yield bot


def test_ten_turns_by_way_of_it(teller: Bot) -> None:
    ten_turns_of_one_session(teller)


def test_a_stop_by_way_of_it_frees_the_slot_behind_it(teller: Bot, llama: ForeignServer) -> None:
    a_stop_in_mid_stream_frees_the_slot(teller, llama)


def test_eight_sessions_by_way_of_it_are_all_answered(teller: Bot) -> None:
    eight_sessions_at_once_are_all_answered(teller)


def test_an_outage_of_it_delays_and_loses_nothing(teller: Bot, proxy: ForeignServer, llama: ForeignServer) -> None:
    an_outage_delays_and_loses_nothing(teller, proxy, llama)
