"""Files that people send, fetched by each platform's door over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.platform_calls import PlatformCalls
from gateway.platform_files import PlatformFiles
from gateway.platforms.discord import Discord
from gateway.platforms.line import Line
from gateway.platforms.matrix import Matrix
from gateway.platforms.port import Adapter, ApiRequest, ApiResponse, File
from gateway.platforms.slack import Slack
from gateway.platforms.standard import Standard
from gateway.platforms.teams import Teams
from gateway.platforms.telegram import Telegram
from gateway.platforms.twilio import Twilio
from gateway.platforms.whatsapp import WhatsApp
from gateway.public_files import PublicFiles, PublicNames
from loadtests.loopback import Loopback
from shared.attachments import Attachment, AttachmentLimits, Upload
from shared.platform_settings import (
    DiscordSettings,
    LineSettings,
    MatrixSettings,
    SlackSettings,
    StandardSettings,
    TeamsSettings,
    TelegramSettings,
    TwilioSettings,
    WhatsAppSettings,
)

DATA = b"\x89PNG\r\n\x1a\n and more"
LIMITS = AttachmentLimits(file_bytes=100)
SID = "AC" + "0" * 32


class FileServer:
    """Serves one file the way each platform does, to whoever shows the platform's token."""

    def __init__(self) -> None:
        self.data = DATA
        self.server = Loopback(Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])]))
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return self.server.url

    async def _answer(self, request: Request) -> Response:
        path, proof = request.url.path, request.headers.get("authorization", "")
        self.asked.append((path, proof))
        match path.split("/")[1:]:
            case ["bot1:t", "getFile"]:
                found = {"ok": True, "result": {"file_id": "f", "file_path": "photos/1.png"}}
                known = await request.json() == {"file_id": "f"}
                return JSONResponse(found if known else {"ok": False, "error_code": 400}, 200 if known else 400)
            case ["v26.0", "f"]:
                return JSONResponse({"url": self.url + "/media", "mime_type": "image/png"})
            case ["2010", "gone"]:
                return RedirectResponse("http://10.0.0.1/secret")
            case ["login", *_]:
                return JSONResponse({"access_token": "t", "expires_in": 3600})
            case [*_, "inside"]:
                return RedirectResponse("http://169.254.169.254/latest/meta-data")
            case ["hop", count]:
                return RedirectResponse(f"{self.url}/hop/{int(count) - 1}" if int(count) else "/moved.png")
            case [*_, "gone"]:
                return JSONResponse({"error": "not found"}, 404)
            case _:
                return Response(self.data, media_type="image/png")


@pytest.fixture
def server() -> Iterator[FileServer]:
    files = FileServer()
    with files.server.in_thread():
        yield files


DOORS: dict[str, Callable[[str], tuple[Adapter, File]]] = {
    "telegram": lambda url: (Telegram(TelegramSettings("1:t", "s", url)), File("f", "a.png")),
    "slack": lambda url: (Slack(SlackSettings("s", "t", url + "/api")), File("F", "a.png", url=url + "/files/a.png")),
    "whatsapp": lambda url: (WhatsApp(WhatsAppSettings("s", "v", "t", "1", url)), File("f", "a.png")),
    "matrix": lambda url: (Matrix(MatrixSettings("t", "h", "@b:x", url)), File("", "a.png", url="mxc://x/f")),
    "line": lambda url: (Line(LineSettings("s", "t", url, url)), File("f", "a.png")),
    "twilio": lambda url: (Twilio(TwilioSettings(SID, "t", url)), File("f", "a.png", url=url + "/2010/f")),
    "teams": lambda url: (
        Teams(TeamsSettings("app", "p", "tenant", url, url + "/login", url)),
        File("1", "a.png", url=url + "/v3/attachments/1"),
    ),
}


def waiting(file: File) -> Attachment:
    return Attachment(file.name, file.media, file.size_bytes, "", msgspec.json.encode(file))


async def fetched(adapter: Adapter, file: File, *listed: str) -> Upload:
    calls, public = PlatformCalls(), PublicFiles(listed)
    files = PlatformFiles({adapter.name: adapter}, calls, public, LIMITS)
    try:
        return await files.fetch(adapter.name, waiting(file))
    finally:
        await files.close()
        await public.close()
        await calls.close()


@pytest.mark.parametrize("name", DOORS)
async def test_a_file_is_fetched_with_the_platforms_own_proof(name: str, server: FileServer) -> None:
    adapter, file = DOORS[name](server.url)
    upload = await fetched(adapter, file)
    assert (upload.problem, upload.data, upload.name) == ("", DATA, "a.png")
    path, proof = server.asked[-1]
    assert proof.startswith("Basic " if name == "twilio" else "Bearer ") or "bot1:t" in path


@pytest.mark.parametrize("name", DOORS)
async def test_a_file_that_cannot_be_had_is_named_with_the_reason(name: str, server: FileServer) -> None:
    adapter, file = DOORS[name](server.url)
    server.data = b"x" * 101
    assert "more than the 100 bytes" in (await fetched(adapter, file)).problem
    told = await fetched(adapter, msgspec.structs.replace(file, size_bytes=101))
    assert told.problem == "it has 101 bytes, and 100 are taken"
    gone = msgspec.structs.replace(file, id="gone", url=file.url and f"{file.url.rpartition('/')[0]}/gone")
    told = await fetched(adapter, gone)
    assert told.problem
    assert not told.data


async def test_nothing_in_a_private_network_is_asked_but_what_the_settings_name(server: FileServer) -> None:
    """Whatever an event or an answer says: a file's url comes from outside."""

    class Trusting(Discord, frozen=True):
        def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
            return None if answer else ApiRequest(file.url, {}, b"", "GET")

    adapter = Trusting(DiscordSettings("0" * 64, "1", "t"))
    port = urlsplit(server.url).port
    for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]"):
        upload = await fetched(adapter, File("1", "a", url=f"http://{host}:{port}/a"))
        assert upload.problem, host
        assert not upload.data
    assert server.asked == []
    twilio, file = DOORS["twilio"](server.url)
    told = await fetched(twilio, msgspec.structs.replace(file, url=server.url + "/2010/gone"))
    assert told.problem == "twilio answered 307 for it"


async def test_a_files_own_words_lead_nowhere(server: FileServer) -> None:
    """A file whose text looks like the answer of its platform is a file."""
    server.data = b'{"ok":true,"result":{"file_path":"photos/2.png"}}'
    adapter, file = DOORS["telegram"](server.url)
    assert (await fetched(adapter, file)).data == server.data
    assert len(server.asked) == 2


STANDARD = Standard(StandardSettings("whsec_" + "c2VjcmV0" * 4, "http://127.0.0.1:1/"))


async def test_a_link_is_followed_hop_by_hop_and_each_hop_is_checked(server: FileServer) -> None:
    listed = server.url.removeprefix("http://")

    async def linked(path: str) -> Upload:
        return await fetched(STANDARD, File("", "a.png", url=server.url + path), listed)

    assert (await linked("/hop/3")).data == DATA
    assert "more than 5 times" in (await linked("/hop/6")).problem
    assert "169.254.169.254" in (await linked("/inside")).problem
    assert (await linked("/gone")).problem == "standard answered 404 for it"
    external = File("1", "a.png", url=server.url + "/kept.png")
    assert (await fetched(DOORS["line"](server.url)[0], external, listed)).data == DATA
    server.asked.clear()
    for url in (
        server.url,
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:7f00:1]/",
        "ftp://a/b",
    ):
        upload = await fetched(STANDARD, File("", "a.png", url=url), "127.0.0.2:80")
        assert upload.problem, url
    assert server.asked == []


async def test_a_name_that_leads_into_a_private_network_is_refused_and_a_token_follows_no_redirect(
    server: FileServer,
) -> None:
    with pytest.raises(OSError, match="localhost leads into a private network"):
        await PublicNames().resolve("localhost", 80)
    public = PublicFiles((server.url.removeprefix("http://"),))
    asked = ApiRequest(f"{server.url}/hop/1", {"authorization": "Bearer t"}, b"", "GET")
    answer = await public.get(asked, 100)
    assert isinstance(answer, ApiResponse)
    assert answer.status == 307
    assert server.asked == [("/hop/1", "Bearer t")]
    answer = await public.get(msgspec.structs.replace(asked, headers={}), 100)
    assert isinstance(answer, ApiResponse)
    assert (answer.status, {proof for _, proof in server.asked[1:]}) == (200, {""})
    await public.close()
