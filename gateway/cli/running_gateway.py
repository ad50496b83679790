"""The gateway that runs where the settings say: found, made sure of, and asked over HTTP.

Whatever a live one knows is asked of it: its workers are in no database, and one process writes a SQLite file.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from gateway.cli.command import CommandFailed
from gateway.keys import command_credential
from shared.settings import Settings
from shared.version import SERVER_NAME

ASK_TIMEOUT_S = 10.0
#: a host that means every address, and where it is asked on this machine
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


class RunningGateway:
    """A gateway known to be one."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def ask(self, method: str, path: str, what: str = "") -> bytes:
        """Return the body of an answer; ``what`` names what a 404 means is not there. Raises CommandFailed."""
        answer = await _request(self.url, method, path, self._headers)
        if answer.status_code == 404 and what:
            raise CommandFailed(f"there is no {what} at {self.url}")
        if answer.status_code >= 400:
            raise CommandFailed(f"the gateway at {self.url} refused: {_refusal(answer.content)}")
        return answer.content

    async def get(self, path: str, what: str = "") -> dict[str, Any]:
        """Return the JSON object of a GET. Raises CommandFailed."""
        try:
            return msgspec.json.decode(await self.ask("GET", path, what), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise CommandFailed(f"the gateway at {self.url} gave no JSON object for {path}: {error}") from None

    async def readiness(self) -> str:
        """Return why it is not ready, empty if it is. Raises CommandFailed."""
        answer = await _request(self.url, "GET", "/readyz", {})
        if answer.status_code == 200:
            return ""
        try:
            return str(msgspec.json.decode(answer.content)["reason"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return f"/readyz answers {answer.status_code}"


async def find_gateway(settings: Settings) -> RunningGateway | None:
    """Return the gateway that listens where the settings say, None if nothing listens there.

    Raises CommandFailed where another program does.
    """
    if settings.port == 0:
        return None
    url = address(settings)
    try:
        answer = await _request(url, "GET", "/livez", {})
    except NobodyListens:
        return None
    except CommandFailed as error:
        raise CommandFailed(f"{error}; {_advice(settings)}") from None
    server = answer.headers.get("server", "")
    if server != SERVER_NAME:
        said = f"answers as {server!r}" if server else f"answers {answer.status_code} and does not say what it is"
        raise CommandFailed(f"the program at {url} is no Gatehouse: it {said}; {_advice(settings)}")
    return RunningGateway(url, command_credential(settings, time.time()) or "")


class NobodyListens(CommandFailed):
    """Raised when nothing listens at an address."""


def address(settings: Settings) -> str:
    """Return the url a gateway with these settings has on this machine."""
    host = EVERY_ADDRESS.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def segment(name: str) -> str:
    """Return a name as one segment of a path."""
    return quote(name, safe="")


async def _request(url: str, method: str, path: str, headers: dict[str, str]) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=ASK_TIMEOUT_S, trust_env=False) as client:
        try:
            return await client.request(method, path)
        except httpx2.ConnectError:
            raise NobodyListens(f"nothing listens at {url}") from None
        except httpx2.TimeoutException:
            raise CommandFailed(f"what listens at {url} does not answer within {ASK_TIMEOUT_S:g} s") from None
        except (httpx2.HTTPError, ValueError) as error:
            raise CommandFailed(f"the program at {url} is no Gatehouse: it speaks no HTTP ({error})") from None


def _advice(settings: Settings) -> str:
    return f"set PORT to the gateway's port, which is {settings.port} now, or PORT=0 to read the database alone"


def _refusal(body: bytes) -> str:
    """Return the message of an error answer."""
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
