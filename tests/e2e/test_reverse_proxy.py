"""Debian's nginx with nothing but ``proxy_pass`` in front of a gateway: webhooks pass, the admin API needs a key."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from gateway.request_origin import PATH, RequestOrigin, proxy_problems
from loadtests.gateway_process import GatewayProcess
from loadtests.platform import platform_environment
from loadtests.platform_wire import Secrets
from loadtests.sender import Sender

ADMIN = [
    ("GET", "/v1/workers"), ("POST", "/v1/workers/0/kill"), ("GET", "/v1/sessions"), ("GET", "/v1/pairings"),
    ("POST", "/v1/pairings/ABCDEFGH/approve"), ("GET", "/metrics"), ("GET", "/v1/dead"), ("GET", "/v1/events"),
    ("POST", "/v1/chat/completions"),
]  # fmt: skip


def nginx_program() -> str:
    """Return nginx; without it skip, and fail where CI is set."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no nginx")
        pytest.skip("there is no nginx")
    return program


@contextlib.contextmanager
def nginx_before(url: str, extra: str = "", user: str | None = None) -> Iterator[str]:
    """Run nginx in front of a url, configured by one line, in a directory of its user; yield its own url."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if user is not None:
            shutil.chown(directory, user)
        config = directory / "nginx.conf"
        paths = "".join(
            f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/error; events {{}} "
            f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; "
            f"location / {{ proxy_pass {url}; {extra} }} }} }}"
        )
        command = [nginx_program(), "-e", str(directory / "error"), "-p", str(directory), "-c", str(config)]
        with subprocess.Popen(command, user=user) as proxy:
            try:
                wait_until_open(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                proxy.terminate()


def wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        else:
            return


def statuses(url: str) -> set[int]:
    """Return what every route of the admin API says to somebody without a key."""
    with httpx2.Client(base_url=url, trust_env=False, timeout=20) as stranger:
        return {stranger.request(method, path).status_code for method, path in ADMIN}


FORWARDED = "proxy_set_header X-Forwarded-Proto https;"
HOST = "proxy_set_header Host bot.example.com;"
#: lines of a configuration that lacks something, and what `doctor` says of it
PROXIES = {
    f"{HOST} {FORWARDED} proxy_set_header X-Forwarded-For $remote_addr;": [],
    f"{HOST} {FORWARDED} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;": [],
    f"{FORWARDED} proxy_set_header X-Forwarded-For $remote_addr;": ["Host"],
    f"{HOST} proxy_set_header X-Forwarded-For $remote_addr;": ["X-Forwarded-Proto"],
    f"{HOST} {FORWARDED}": ["X-Forwarded-For is passed"],
    'proxy_http_version 1.1; proxy_set_header Connection "";': ["nothing shows", "Host", "X-Forwarded-Proto"],
}


async def test_what_a_proxy_leaves_out_is_named(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "0"}) as gateway:
        for extra, wanted in PROXIES.items():
            with nginx_before(gateway.url, extra) as url:
                async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
                    told = [
                        await client.get(PATH, headers=headers) for headers in ({}, {"x-forwarded-for": "203.0.113.77"})
                    ]
            plain, claiming = (msgspec.json.decode(answer.content, type=RequestOrigin) for answer in told)
            problems = proxy_problems("https://bot.example.com", plain, claiming, "203.0.113.77")
            assert len(problems) == len(wanted), (extra, problems)
            for problem, words in zip(problems, wanted, strict=True):
                assert words in problem


#: what nginx does by default since 1.30
MODERN = 'proxy_http_version 1.1; proxy_set_header Connection "";'


def test_a_stranger_behind_a_default_proxy_gets_nothing_but_the_webhooks(tmp_path: Path) -> None:
    """With a platform of the internet a key is needed everywhere; without one, wherever a proxy is in between.

    One that shows itself in nothing that it sends runs as another user; only root can start it so here.
    """
    proxies: list[tuple[str, str | None]] = [("", None), ("proxy_set_header X-Forwarded-For $remote_addr;", None)]
    if os.geteuid() == 0:
        proxies.append((MODERN, "nobody"))
    secrets = Secrets()
    everything = platform_environment("http://127.0.0.1:9", secrets)
    local = {name: value for name, value in everything.items() if name.startswith("STANDARD")}
    for name, settings, refusal in (("internet", everything, {401}), ("local", local, {403})):
        (tmp_path / name).mkdir()
        environment = settings | {"GATEHOUSE_WORKERS": "0", "GATEHOUSE_API_KEYS": ""}
        with GatewayProcess(tmp_path / name, environment) as gateway:
            for extra, user in proxies:
                with nginx_before(gateway.url, extra, user) as url:
                    assert statuses(url) == refusal
                    signed = Sender(secrets).standard("s", "hello")
                    taken = httpx2.post(f"{url}{signed.path}", content=signed.body, headers=signed.headers)
                    assert taken.status_code == 200
                    assert httpx2.get(f"{url}/livez").status_code == 200
