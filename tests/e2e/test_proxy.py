"""Models that only a proxy reaches."""

from __future__ import annotations

from pathlib import Path

from loadtests.gateway_process import GatewayProcess
from loadtests.provider import running_provider


def test_a_model_is_called_through_the_proxy_of_the_environment(tmp_path: Path) -> None:
    with running_provider() as provider:
        # it takes the whole url that a proxy is sent, and answers in the model's place
        settings = {
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_SPARES": "0",
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": "http://model.invalid/v1",
            "HTTP_PROXY": provider.url,
            "NO_PROXY": "elsewhere.invalid",
        }
        with GatewayProcess(tmp_path, settings) as gateway:
            body = {"model": "gatehouse", "messages": [{"role": "user", "content": "through?"}]}
            answer = gateway.ask("POST", "/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert provider.requests[-1].headers["host"] == "model.invalid"
