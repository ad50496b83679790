"""A Telegram server that others wrote, from a user's message to the answer in the chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from loadtests.gateway_process import GatewayProcess
from loadtests.program import free_port
from loadtests.provider import running_provider
from tests.real.faulty_proxy import FaultyProxy
from tests.real.foreign import SCRIPTS, ForeignServer, installed, wait_until

TOKEN = "123456:a-token-for-the-tests-of-real-servers"
SECRET = "a-secret-for-the-tests-of-real-servers"


def post(server: ForeignServer, path: str, body: dict[str, Any]) -> Any:
    answer = httpx2.post(f"{server.url}/{path}", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def say(server: ForeignServer, text: str) -> None:
    """Write as a user in a private chat."""
    person = {"id": 7, "first_name": "Ana", "username": "ana", "is_bot": False}
    chat = {"id": 7, "first_name": "Ana", "type": "private"}
    post(server, "sendMessage", {"botToken": TOKEN, "date": 1, "from": person, "chat": chat, "text": text})


def answers(server: ForeignServer) -> list[dict[str, Any]]:
    """Return what the bot wrote, as the server keeps it."""
    updates = post(server, "getUpdatesHistory", {"token": TOKEN})
    return [update["message"] for update in updates if "chat_id" in update["message"]]


def test_a_chat_over_a_telegram_server_of_others(tmp_path: Path) -> None:
    packages, port = installed("node") / "node_modules", free_port()
    server = ForeignServer(
        ["node", SCRIPTS / "telegram_server.js", packages, str(port)], port, f"/bot{TOKEN}/getMe", tmp_path
    )
    with running_provider() as provider, FaultyProxy() as pushes, server:
        settings = {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_SECRET_TOKEN": SECRET,
            "TELEGRAM_API_BASE": server.url,
            "GATEHOUSE_ALLOW": "telegram:7",
            "GATEHOUSE_API_KEYS": "a-key-for-the-tests-of-real-servers",
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.url + "/v1",
        }
        with GatewayProcess(tmp_path, settings) as gateway:
            pushes.target = gateway.url
            pushes.adds = {"x-telegram-bot-api-secret-token": SECRET}  # this server leaves it out
            post(server, f"bot{TOKEN}/setWebhook", {"url": f"{pushes.url}/webhooks/telegram"})
            say(server, "[[say **bold** & `code`]]")
            wait_until(lambda: len(answers(server)) == 1, 30, gateway.log())
            say(server, "[[sleep 2]] [[say second]]")
            wait_until(lambda: len(answers(server)) == 2, 30, gateway.log())
            first, second = answers(server)
            assert (first["text"], first["parse_mode"]) == ("<b>bold</b> &amp; <code>code</code>", "HTML")
            assert (second["text"], int(second["chat_id"])) == ("second", 7)
