"""A Synapse of its own: its files, its users, and what they do over the client-server API."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from loadtests.program import free_port
from tests.real.foreign import ForeignServer, installed

NAME = "gh.test"
BOT = f"@gatehouse:{NAME}"
AS_TOKEN = "as_token_of_the_tests_of_real_servers"
HS_TOKEN = "hs_token_of_the_tests_of_real_servers"

REGISTRATION = """\
id: gatehouse
url: {url}
as_token: {as_token}
hs_token: {hs_token}
sender_localpart: gatehouse
rate_limited: false
namespaces: {{users: [{{exclusive: true, regex: "@gatehouse:gh\\\\.test"}}], aliases: [], rooms: []}}
"""

CONFIGURATION = """
app_service_config_files: [{directory}/gatehouse.yaml]
suppress_key_server_warning: true
federation_domain_whitelist: []
presence: {{enabled: false}}
rc_message: {{per_second: 1000, burst_count: 1000}}
rc_login: {{address: {{per_second: 1000, burst_count: 1000}}, account: {{per_second: 1000, burst_count: 1000}}}}
rc_room_creation: {{per_second: 1000, burst_count: 1000}}
rc_joins: {{local: {{per_second: 1000, burst_count: 1000}}}}
rc_invites: {{per_room: {{per_second: 1000, burst_count: 1000}}, per_user: {{per_second: 1000, burst_count: 1000}}}}
"""


def make_homeserver(directory: Path, pushes_to: str) -> ForeignServer:
    """Write a homeserver's files; ``pushes_to`` is the url that it sends transactions to."""
    python = installed("synapse") / "bin" / "python"
    port = free_port()
    module = [str(python), "-m", "synapse.app.homeserver", "--config-path", "homeserver.yaml"]
    made = ["--server-name", NAME, "--generate-config", "--report-stats=no"]
    subprocess.run([*module, *made], cwd=directory, check=True, capture_output=True, timeout=60)
    registration = REGISTRATION.format(url=pushes_to, as_token=AS_TOKEN, hs_token=HS_TOKEN)
    (directory / "gatehouse.yaml").write_text(registration)
    written = (directory / "homeserver.yaml").read_text()
    for old, new in {"port: 8008": f"port: {port}", "    - ::1\n": "", "      - federation\n": ""}.items():
        assert old in written, old
        written = written.replace(old, new)
    keys = written.index("trusted_key_servers:")
    rest = written[keys:].split("\n", 2)[2]  # the line and the one server that stands under it
    written = written[:keys] + "trusted_key_servers: []\n" + rest
    (directory / "homeserver.yaml").write_text(written + CONFIGURATION.format(directory=directory))
    log = directory / f"{NAME}.log.config"
    log.write_text(log.read_text().replace("level: INFO", "level: WARNING"))
    return ForeignServer(module, port, "/health", directory)


class Person:
    """One user of the homeserver."""

    def __init__(self, server: ForeignServer, directory: Path, name: str) -> None:
        register = installed("synapse") / "bin" / "register_new_matrix_user"
        command = [str(register), "-u", name, "-p", f"pw-{name}", "--no-admin", "-c", "homeserver.yaml", server.url]
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
        self._api = httpx2.Client(base_url=f"{server.url}/_matrix/client/v3", timeout=30)
        who = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": who, "password": f"pw-{name}"}
        self._api.headers["authorization"] = f"Bearer {self.ask('POST', 'login', body)['access_token']}"
        self.user_id = f"@{name}:{NAME}"
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self._api.close()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Return the answer of the client-server API."""
        answer = self._api.request(method, f"/{path}", json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def room(self, *invited: str, direct: bool = True) -> str:
        """Make a room and return its id."""
        body = {"is_direct": direct, "invite": [*invited], "preset": "private_chat"}
        made: str = self.ask("POST", "createRoom", body)["room_id"]
        return made

    def join(self, room: str) -> None:
        self.ask("POST", f"join/{quote(room, safe='')}", {})

    def members(self, room: str) -> set[str]:
        """Return who has joined."""
        return set(self.ask("GET", f"rooms/{quote(room, safe='')}/joined_members")["joined"])

    def say(self, room: str, text: str, **content: Any) -> str:
        """Send a message and return its event id."""
        body = {"msgtype": "m.text", "body": text, **content}
        path = f"rooms/{quote(room, safe='')}/send/m.room.message/t{next(self._numbers)}"
        sent: str = self.ask("PUT", path, body)["event_id"]
        return sent

    def redact(self, room: str, event: str) -> None:
        path = f"rooms/{quote(room, safe='')}/redact/{quote(event, safe='')}/t{next(self._numbers)}"
        self.ask("PUT", path, {})

    def events(self, room: str, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return a room's events, oldest first."""
        page = self.ask("GET", f"rooms/{quote(room, safe='')}/messages?dir=f&limit=200")
        return [event for event in page["chunk"] if wanted(event)]

    def answers(self, room: str) -> list[str]:
        """Return the bot's final texts, oldest first: of what it wrote over, the last."""
        texts: dict[str, str] = {}
        for event in self.events(room, lambda event: event["sender"] == BOT and event["type"] == "m.room.message"):
            content = event["content"]
            relation = content.get("m.relates_to", {})
            if relation.get("rel_type") == "m.replace":
                texts[relation["event_id"]] = content["m.new_content"]["body"]
            else:
                texts[event["event_id"]] = content["body"]
        return list(texts.values())
