"""Keys with a name and a role: made by a command, kept as hashes, taken as the field's clients send them."""

from __future__ import annotations

import json
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gateway.keys import Caller, KeyFile, Keys
from gateway.tickets import make_secret
from loadtests.gateway_process import GatewayProcess
from shared.api_keys import ApiKey, Role, entry_of, parse_entry
from shared.settings import parse_settings
from tests.e2e.command_line import port_of, run_command, run_inside

ADMIN = "the-admin-key"
CALL = {"model": "gatehouse", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    data_dir = tmp_path_factory.mktemp("locked")
    with GatewayProcess(data_dir, {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_API_KEYS": ADMIN}) as gateway:
        yield gateway


@pytest.fixture
def web(locked: GatewayProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=locked.url, timeout=30, trust_env=False) as client:
        yield client


def made(gateway: GatewayProcess, name: str, role: str) -> str:
    """Make a key beside the running gateway and return its secret."""
    told = run_command(gateway.data_dir, "key", "add", name, "--role", role)
    assert told.returncode == 0, told.stderr
    secret = told.stdout.splitlines()[0]
    assert secret.startswith("gk_")
    return secret


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_role_opens_its_own_routes_and_no_other(locked: GatewayProcess, web: httpx2.Client) -> None:
    chat, read = made(locked, "chatter", "chat"), made(locked, "reader", "read")
    wanted = {chat: (200, 200, 403, 403), read: (403, 200, 200, 403), ADMIN: (200, 200, 200, 404)}
    for secret, statuses in wanted.items():
        headers = bearer(secret)
        found = (
            web.post("/v1/chat/completions", json=CALL, headers=headers).status_code,
            web.get("/v1/models", headers=headers).status_code,
            web.get("/v1/sessions", headers=headers).status_code,
            web.delete("/v1/dead/none", headers=headers).status_code,
        )
        assert found == statuses
    refused = web.get("/v1/sessions", headers=bearer(chat)).json()["error"]
    assert (refused["code"], refused["type"]) == ("role_missing", "permission_error")


def test_a_key_is_taken_in_both_headers_and_refused_from_its_revocation_on(
    locked: GatewayProcess, web: httpx2.Client
) -> None:
    secret = made(locked, "passing", "admin")
    assert web.get("/v1/workers", headers={"x-api-key": secret}).status_code == 200
    assert web.get("/v1/workers", headers=bearer(secret)).status_code == 200
    with web.stream("GET", "/v1/events", headers=bearer(secret)) as events:
        lines = events.iter_lines()
        assert next(lines)
        assert run_inside(locked.data_dir, "key", "revoke", "passing").returncode == 0
        assert web.get("/v1/workers", headers=bearer(secret)).status_code == 401
        began = time.monotonic()
        while next(lines) != "event: bye":  # what it reads ends too
            assert time.monotonic() - began < 20


def test_the_file_holds_hashes_and_is_its_owners_alone(locked: GatewayProcess) -> None:
    secret = made(locked, "hashed", "read")
    path = locked.data_dir / "keys.json"
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listed = json.loads(run_inside(locked.data_dir, "key", "list", "--json").stdout)["keys"]
    assert {"hashed": "read"}.items() <= {key["name"]: key["role"] for key in listed}.items()


def test_a_directory_that_is_made_for_keys_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever comes first into it: a key, or the secret that tickets are signed with."""
    KeyFile(tmp_path / "keys").write(())
    make_secret(tmp_path / "secret")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("keys", "secret")] == [0o700, 0o700]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "a:b"), "a key's name is"), (("add", "twice"), "already"), (("revoke", "nobody"), "there is no key"),
        (("revoke", "key-listed"), "there is no key"), (("add", "default"), "is no name for a chat key"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    run_inside(tmp_path, "key", "add", "twice")
    told = run_inside(tmp_path, "key", *arguments)
    assert told.returncode == 1
    assert said in told.stderr
    assert told.stderr.count("\n") == 1


def test_the_calls_of_a_key_are_its_own(locked: GatewayProcess, web: httpx2.Client) -> None:
    """The key's name is the user; a key that may only chat neither sees nor shares sessions of others."""
    ana, bob = made(locked, "ana", "chat"), made(locked, "bob", "chat")
    named = {"X-Gatehouse-Session": "shared name"}

    def say(secret: str, text: str) -> httpx2.Response:
        body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}]}
        return web.post("/v1/chat/completions", json=body, headers=bearer(secret) | named)

    said = say(ana, "add a secret plan")
    assert said.headers["x-gatehouse-session-key"] == "api:ana:shared%20name"
    assert "secret plan" not in say(bob, "list").text
    repeated = {"Idempotency-Key": "a number that both have drawn"}
    ids = {
        web.post("/v1/chat/completions", json=CALL, headers=bearer(secret) | repeated).headers["x-gatehouse-message"]
        for secret in (ana, bob, ana, bob)
    }
    assert len(ids) == 2
    trace = web.get(f"/v1/messages/{said.headers['x-gatehouse-message']}", headers=bearer(ADMIN)).json()
    assert trace["user"] == "ana"
    metrics = web.get("/metrics", headers=bearer(ADMIN)).text
    assert re.search(r'gatehouse_api_calls_total\{code="200",key="ana"\} [1-9]', metrics)


def test_a_browser_signs_in_with_a_cookie_that_only_this_sites_own_pages_can_use(web: httpx2.Client) -> None:
    assert web.post("/v1/login", json={"key": "wrong"}).status_code == 401
    signed_in = web.post("/v1/login", json={"key": ADMIN})
    cookie = signed_in.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert ADMIN not in cookie
    assert web.get("/console.json").json() == {"key_needed": True, "signed_in": signed_in.json()}
    assert web.get("/v1/workers").status_code == 200
    retry = "/v1/dead/none/retry"
    assert web.post(retry).status_code == 403
    assert web.post(retry, headers={"Origin": "https://evil.example"}).status_code == 403
    assert web.post(retry, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert web.post(retry, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 404
    assert web.post(retry, headers={"Origin": str(web.base_url).rstrip("/")}).status_code == 404
    assert web.post("/v1/logout").status_code == 200
    assert web.get("/v1/workers").status_code == 401


def test_a_cookie_is_of_the_key_that_was_shown_where_two_have_one_name(tmp_path: Path) -> None:
    """One in the environment, and one in the file, made before that."""
    environment = {"GATEHOUSE_API_KEYS": f"ops:admin:{parse_entry('big').digest}", "GATEHOUSE_DATA_DIR": str(tmp_path)}
    KeyFile(tmp_path).write((ApiKey("ops", Role.CHAT, parse_entry("small").digest),))
    keys = Keys(parse_settings(environment))
    make_secret(tmp_path)
    for secret, role in (("big", Role.ADMIN), ("small", Role.CHAT)):
        ticket = keys.ticket(secret)
        assert ticket
        assert keys.by_ticket(ticket) == Caller("ops", role)
    assert keys.ticket("neither") is None


def test_a_forged_cookie_opens_nothing(web: httpx2.Client) -> None:
    ticket = web.post("/v1/login", json={"key": ADMIN}).cookies["gatehouse_login"]
    web.cookies.clear()
    for forged in (ticket[:-4] + "AAAA", ticket.partition(".")[0], f"{ticket}.x", "", ".", "é.é"):
        answer = web.get("/v1/workers", headers=[(b"cookie", b"gatehouse_login=" + forged.encode("latin-1"))])
        assert answer.status_code == 401


def test_where_strangers_can_come_in_the_first_start_makes_a_key_and_shows_it_once(tmp_path: Path) -> None:
    settings = {
        "GATEHOUSE_WORKERS": "1",
        "TELEGRAM_BOT_TOKEN": "1:x",
        "TELEGRAM_SECRET_TOKEN": "s",
        "TELEGRAM_API_BASE": "http://127.0.0.1:9",
    }
    with GatewayProcess(tmp_path, settings) as gateway:
        (secret,) = re.findall(r"gk_[\w-]{43}", gateway.log())
        assert httpx2.get(f"{gateway.url}/v1/pairings").status_code == 401
        assert httpx2.get(f"{gateway.url}/v1/pairings", headers=bearer(secret)).status_code == 200
        # a command of this machine needs no key
        dead = run_inside(tmp_path, "dead", "list", port=port_of(gateway))
        assert (dead.returncode, dead.stdout) == (0, "")
        gateway.terminate()
        gateway.start()
        assert "gk_" not in gateway.log()


def test_an_entry_of_the_setting_is_a_hash_or_a_key_in_plain_text() -> None:
    plain = parse_entry("secret-word")
    assert plain.role is Role.ADMIN
    hashed = parse_entry(f"ana:chat:sha256:{plain.digest}")
    assert (hashed.name, hashed.role, hashed.digest) == ("ana", Role.CHAT, plain.digest)
    assert parse_entry(entry_of(hashed)) == hashed
    assert parse_entry(f"ana:chat:{plain.digest.upper()}") == hashed
    for wrong in ("ana:chat:sha256:12", "ana:root:sha256:" + "0" * 64, "a b:chat:" + "0" * 64, "ana:read:"):
        with pytest.raises(ValueError, match=r"role|name|entry"):
            parse_entry(wrong)
