"""Replies from a real store to a platform over real HTTP that fails as scripted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.delivery import Delivery
from gateway.platforms import enabled_platforms
from gateway.platforms.port import Adapter, ApiRequest
from gateway.platforms.standard import Standard
from gateway.platforms.telegram import Telegram
from gateway.reply_sender import LocalReceiver, TextsOf, in_english
from loadtests.platform import Fault, RunningPlatform, running_platform
from shared.events import Event, Events
from shared.ids import new_message_id
from shared.messages import Arrival, DueReplies, Ended, Reply, ReplyState, ReplyStatus, TurnStatus
from shared.settings import parse_settings
from shared.store import Store
from shared.texts import ENGLISH, LANGUAGES
from shared.traces import MessageTrace
from tests.gateway.edge import open_test_store, serving

ADDRESSES = {
    "standard": b'{"session":"%s"}',
    "telegram": b'{"chat_id":%s,"message_id":9}',
    "slack": b'{"channel":"%s","thread_ts":"1.5"}',
    "api": b'{"name":"%s"}',
}


class Sending:
    """What a test may touch of a running delivery."""

    def __init__(
        self,
        platform: RunningPlatform,
        store: Store,
        events: Events,
        delivery: Delivery,
        platforms: dict[str, Adapter],
    ) -> None:
        self.platform = platform
        self.store = store
        self.events = events
        self.delivery = delivery
        self.platforms = platforms

    async def reply(self, platform: str, conversation: str, *texts: str, user: str = "u") -> list[str]:
        """Accept and settle one message for each text; return the message ids."""
        ids = []
        for text in texts:
            ids.append(await self._accept(platform, conversation, user))
            (claim,) = (await self.store.claims.claim("test", 1, 60.0)).claims
            await self.store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, text, ()))
        self.delivery.wake()
        return ids

    async def _accept(self, platform: str, conversation: str, user: str) -> str:
        message_id = new_message_id()
        arrival = Arrival(
            id=message_id,
            session=f"{platform}:default:{conversation}",
            platform=platform,
            user=user,
            text="x",
            reply=ADDRESSES[platform] % conversation.encode(),
            dedupe=(message_id,),
            dedupe_ttl_s=60.0,
            at=time.time(),
        )
        return (await self.store.inbox.accept(arrival)).message_id

    async def texts(self, count: int, platform: str, conversation: str | None = None) -> list[str]:
        """Wait for so many replies and return their texts."""
        return [reply.text for reply in await self.platform.arrived(count, platform, conversation)]

    async def until(self, message_id: str, holds: Callable[[MessageTrace], bool]) -> MessageTrace:
        """Wait until a message's trace is as wanted, and return it."""

        async def reached() -> bool:
            return holds(await self.store.inbox.trace(message_id))

        await eventually(reached)
        return await self.store.inbox.trace(message_id)

    async def counted(self, event: Event, count: int = 1) -> None:
        """Wait until an event was said so often."""

        async def reached() -> bool:
            return self.events.counts[event] >= count

        await eventually(reached)


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - what is waited for lies in a store or in another thread
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def bot_api(answer: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]) -> AsyncIterator[str]:
    """Serve a Bot API that answers every call by a function of its body; yield its base url."""

    async def take(request: Request) -> Response:
        status, body = answer(await request.json())
        return JSONResponse(body, status)

    async with serving(Starlette(routes=[Route("/{method:path}", take, methods=["POST"])])) as url:
        yield url


def settled(state: ReplyState) -> Callable[[MessageTrace], bool]:
    return lambda trace: bool(trace.replies) and all(reply.state is state for reply in trace.replies)


@pytest.fixture(scope="module")
def far_side() -> Iterator[RunningPlatform]:
    """One platform for all tests here."""
    with running_platform() as platform:
        yield platform


@contextlib.asynccontextmanager
async def delivering(
    far_side: RunningPlatform,
    data_dir: Path,
    local: dict[str, LocalReceiver] | None = None,
    texts_of: TextsOf = in_english,
    **more: str,
) -> AsyncIterator[Sending]:
    settings = parse_settings({**far_side.environment(), **more})
    events = Events()
    async with open_test_store(data_dir) as store:
        platforms = enabled_platforms(settings)
        delivery = Delivery(store, platforms, events, "test", local)
        delivery.texts_of = texts_of
        await delivery.start()
        try:
            yield Sending(far_side, store, events, delivery, platforms)
        finally:
            await delivery.close()


@pytest.fixture
async def sending(far_side: RunningPlatform, tmp_path: Path) -> AsyncIterator[Sending]:
    """A delivery that knows its bots already, so that no getMe takes a scripted fault."""
    async with delivering(far_side, tmp_path) as sending:
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("identity of")))
        far_side.forget()
        yield sending


@pytest.mark.parametrize(
    ("platform", "conversation", "received"),
    [("standard", "s1", "**hi**"), ("telegram", "5", "<b>hi</b>"), ("slack", "C1", "**hi**")],
)
async def test_a_reply_is_sent_and_its_sent_id_is_kept(
    sending: Sending, platform: str, conversation: str, received: str
) -> None:
    """In the platform's dialect."""
    (message_id,) = await sending.reply(platform, conversation, "**hi**")
    assert await sending.texts(1, platform, conversation) == [received]
    trace = await sending.until(message_id, settled(ReplyState.SENT))
    if platform != "standard":
        assert trace.replies[0].sent_id == sending.platform.received(platform)[0].sent_id
    assert sending.events.counts[Event.REPLY_SENT] == 1


async def test_a_standard_reply_has_exactly_its_fields(sending: Sending) -> None:
    """And its id is the idempotency key."""
    (message_id,) = await sending.reply("standard", "my:session", "hello")
    (reply,) = await sending.platform.arrived(1, "standard")
    assert reply.body == {"session": "my:session", "message": message_id, "text": "hello", "status": "replied"}
    assert reply.key == f"{message_id}.0"
    assert sending.platform.refused == 0


@pytest.mark.parametrize(("platform", "conversation", "count"), [("telegram", "6", 2100), ("slack", "C2", 5000)])
async def test_a_long_reply_goes_out_in_order_and_whole(
    sending: Sending, platform: str, conversation: str, count: int
) -> None:
    """Chunk by chunk, one a second as these platforms allow, and the next reply after its last."""
    words = [f"word{number}" for number in range(count)]
    ids = await sending.reply(platform, conversation, " ".join(words), "after")
    await sending.until(ids[1], settled(ReplyState.SENT))
    texts = [reply.text for reply in sending.platform.received(platform, conversation)]
    assert len(texts) > 4
    assert " ".join(texts[:-1]).split() == words
    assert texts[-1] == "after"
    trace = await sending.store.inbox.trace(ids[0])
    assert [reply.part for reply in trace.replies] == list(range(len(texts) - 1))


async def test_what_stands_for_an_empty_answer_is_in_its_reader_s_language(
    far_side: RunningPlatform, tmp_path: Path
) -> None:
    """Also where that goes by who it is, and not by where."""
    config = tmp_path / "gatehouse.toml"
    config.write_text('[profiles.ana]\nuser = "7:1"\nlanguage = "de"\n', "utf-8")
    profiles = parse_settings({**far_side.environment(), "GATEHOUSE_CONFIG": str(config)}).profiles
    async with delivering(far_side, tmp_path, texts_of=profiles.texts_of) as sending:
        await sending.reply("telegram", "81", " ", user="7:1")
        await sending.reply("telegram", "82", " ", user="8")
        assert await sending.texts(1, "telegram", "81") == [LANGUAGES["de"].empty_answer]
        assert await sending.texts(1, "telegram", "82") == [ENGLISH.empty_answer]


async def test_a_standard_reply_is_not_cut(sending: Sending) -> None:
    """A receiver takes any length."""
    await sending.reply("standard", "s2", "x" * 100_000)
    assert await sending.texts(1, "standard", "s2") == ["x" * 100_000]


@pytest.mark.parametrize("platform", ["standard", "telegram", "slack"])
async def test_retry_after_is_honoured_and_stalls_no_other_session(sending: Sending, platform: str) -> None:
    """A later reply of that session waits too."""
    sending.platform.script(platform, Fault(status=429, retry_after_s=1))
    began = time.time()
    await sending.reply(platform, "71", "first")
    await sending.counted(Event.REPLY_POSTPONED)
    await sending.reply(platform, "71", "second")
    await sending.reply(platform, "72", "other")
    (other,) = await sending.platform.arrived(1, platform, "72")
    first, second = await sending.platform.arrived(2, platform, "71")
    assert other.at - began < 0.9
    assert first.at - began >= 0.99
    assert (first.text, second.text) == ("first", "second")


@contextlib.asynccontextmanager
async def hanging_receiver() -> AsyncIterator[str]:
    """Accept every connection, read what comes and never answer; yield its url."""
    held: set[asyncio.StreamWriter] = set()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(writer)
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/replies"
    finally:
        server.close()
        for writer in held:
            writer.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0)  # the aborted transports close in the next round


async def test_a_reply_leaves_at_once_while_another_receiver_hangs(far_side: RunningPlatform, tmp_path: Path) -> None:
    """However many wait behind that one: here hundreds of chats, each with its own reply."""
    async with (
        hanging_receiver() as url,
        delivering(far_side, tmp_path, STANDARD_WEBHOOK_REPLY_URL=url) as sending,
    ):
        for chat in range(300):
            await sending.reply("standard", f"hanging{chat}", "hi")
        waits_s = []
        for chat in range(20):
            began = time.time()
            await sending.reply("telegram", f"7{chat}", "hello")
            (reply,) = await sending.platform.arrived(1, "telegram", f"7{chat}")
            waits_s.append(reply.at - began)
        assert max(waits_s) < 0.5, waits_s


async def test_a_receiver_that_comes_back_gets_everything_that_waited(
    far_side: RunningPlatform, tmp_path: Path
) -> None:
    """While it is away one reply at a time tries it, and no other uses an attempt."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        url = f"http://127.0.0.1:{port}/standard"
        async with delivering(far_side, tmp_path, STANDARD_WEBHOOK_REPLY_URL=url) as sending:
            for chat in range(40):
                await sending.reply("standard", f"back{chat}", "hi")
            await sending.counted(Event.REPLY_POSTPONED)
            reserved.close()
            got: list[str] = []

            async def take(request: Request) -> Response:
                got.append((await request.json())["session"])
                return JSONResponse({})

            async with serving(Starlette(routes=[Route("/standard", take, methods=["POST"])]), port):

                async def all_came() -> bool:
                    return len(set(got)) == 40

                await eventually(all_came)
            assert sending.events.counts[Event.REPLY_POSTPONED] < 15


class StrictBotApi:
    """A Bot API that takes one message a second to a chat and thirty in all, and says when to come again."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, str]] = []
        self.refused = 0
        self.early = 0  #: requests that came before the moment they were given
        self._at: dict[int, list[float]] = {}
        self._not_before: dict[int, float] = {}

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "chat_id" not in body:
            return 200, {"ok": True, "result": {"id": 1}}
        now, chat = time.monotonic(), body["chat_id"]
        self.early += now < self._not_before.get(chat, 0.0)
        in_all = sum(now - at < 1.0 for moments in self._at.values() for at in moments)
        if in_all >= 30 or any(now - at < 1.0 for at in self._at.get(chat, [])):
            self.refused += 1
            self._not_before[chat] = now + 2.0
            return 429, {"ok": False, "description": "Too Many Requests", "parameters": {"retry_after": 2}}
        self._at.setdefault(chat, []).append(now)
        self.taken.append((chat, body["text"]))
        return 200, {"ok": True, "result": {"message_id": len(self.taken)}}


async def test_chats_get_what_their_platform_allows_whole_and_in_order(
    far_side: RunningPlatform, tmp_path: Path
) -> None:
    """Ten times what it takes at once: hardly any is refused, none comes early, and a quiet chat waits for nobody."""
    api = StrictBotApi()
    async with bot_api(api) as url, delivering(far_side, tmp_path, TELEGRAM_API_BASE=url) as sending:
        for number, chat in itertools.product(range(4), range(10, 20)):
            await sending.reply("telegram", str(chat), f"{number}")
        began = time.monotonic()
        await sending.reply("telegram", "99", "quiet")

        async def quiet_came() -> bool:
            return (99, "quiet") in api.taken

        await eventually(quiet_came)
        assert time.monotonic() - began < 1.5  # the app's own second may be full

        async def all_came() -> bool:
            return len(api.taken) == 41

        await eventually(all_came, 20)
        for chat in range(10, 20):
            assert [text for found, text in api.taken if found == chat] == list("0123")
        assert api.early == 0
        assert api.refused <= 4


async def test_a_sender_who_floods_a_platform_keeps_no_other_waiting(
    far_side: RunningPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the app may send is full for seconds by one sender's chats: others leave at its next free places.

    And what cannot leave yet stays in the outbox: it is not leased and put back again and again.
    """
    api = StrictBotApi()
    async with bot_api(api) as url, delivering(far_side, tmp_path, TELEGRAM_API_BASE=url) as sending:
        due, leased = sending.store.outbox.due, 0

        async def counted(*given: Any) -> DueReplies:
            nonlocal leased
            found = await due(*given)
            leased += len(found.replies)
            return found

        monkeypatch.setattr(sending.store.outbox, "due", counted)
        flood = [
            Reply(
                f"telegram:default:{chat}",
                f"msg_{chat}.{text}",
                0,
                "telegram",
                text,
                ADDRESSES["telegram"] % str(chat).encode(),
                ReplyStatus.REPLIED,
                sender="telegram:flood",
            )
            for chat in range(1000, 1150)
            for text in ("first", "second")
        ]
        await asyncio.gather(*(sending.store.inbox.announce(reply, (), 60.0) for reply in flood))
        sending.delivery.wake()

        async def app_is_full() -> bool:
            return len(api.taken) >= 20

        await eventually(app_is_full)
        before = {}
        for chat in range(1, 6):
            before[chat] = len(api.taken)
            await sending.reply("telegram", str(chat), "quiet", user=f"quiet{chat}")

        async def quiet_came() -> bool:
            return {chat for chat, text in api.taken if text == "quiet"} == set(before)

        await eventually(quiet_came)
        overtaken_by = [api.taken.index((chat, "quiet")) - count for chat, count in before.items()]
        assert max(overtaken_by) < 20, overtaken_by  # those that were on their way, and each other
        assert sum(chat >= 1000 for chat, _ in api.taken) < 290, "the flood was over before"
        assert leased < len(api.taken) + 40, (leased, len(api.taken))
        assert api.refused == 0


class Raising(Standard, frozen=True):
    """An adapter with a bug."""

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:
        raise KeyError(reply.text)


async def test_a_bug_of_an_adapter_is_that_replys_visible_failure(far_side: RunningPlatform, tmp_path: Path) -> None:
    """And nobody else's."""
    async with delivering(far_side, tmp_path) as sending:
        sending.platforms["standard"] = Raising(sending.platforms["standard"].settings)  # type: ignore[attr-defined]
        (broken,) = await sending.reply("standard", "bug", "hi")
        (fine,) = await sending.reply("telegram", "5551", "hi")
        await sending.until(fine, settled(ReplyState.SENT))
        trace = await sending.until(broken, settled(ReplyState.FAILED))
        assert trace.replies[0].error == "the adapter failed: KeyError: 'hi'"


async def test_whatever_the_store_raises_does_not_stop_the_sending(
    far_side: RunningPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and looked again."""
    async with delivering(far_side, tmp_path) as sending:
        due, failures = sending.store.outbox.due, iter(range(2))

        async def odd(*args: Any) -> DueReplies:
            if next(failures, None) is not None:
                raise RuntimeError("nobody expected this")
            return await due(*args)

        monkeypatch.setattr(sending.store.outbox, "due", odd)
        (message_id,) = await sending.reply("standard", "odd", "hi")
        await sending.counted(Event.DELIVERY_FAILED)
        sending.delivery.wake()
        sending.delivery.wake()
        await sending.counted(Event.DELIVERY_FAILED, 2)
        sending.delivery.wake()
        await sending.until(message_id, settled(ReplyState.SENT))


async def test_a_server_error_is_tried_again_with_the_same_key(sending: Sending) -> None:
    """After a backoff of about a second."""
    sending.platform.script("standard", Fault(status=503))
    (message_id,) = await sending.reply("standard", "s3", "hi")
    (reply,) = await sending.platform.arrived(1, "standard", "s3")
    assert reply.key == f"{message_id}.0"
    trace = await sending.until(message_id, settled(ReplyState.SENT))
    assert trace.replies[0].attempts >= 1
    assert sending.events.counts[Event.REPLY_AMBIGUOUS] == 0


async def test_a_lost_answer_is_counted_and_repeated_under_the_same_key(sending: Sending) -> None:
    """The receiver sees by the key that it has it already."""
    sending.platform.script("standard", Fault(reset=True, taken=True))
    await sending.reply("standard", "s4", "hi")
    replies = await sending.platform.arrived(2, "standard", "s4")
    assert len({reply.key for reply in replies}) == 1
    assert sending.events.counts[Event.REPLY_AMBIGUOUS] == 1


async def test_an_unreachable_platform_is_tried_again_and_is_not_ambiguous(
    far_side: RunningPlatform, tmp_path: Path
) -> None:
    """Nothing was sent."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        async with delivering(far_side, tmp_path, STANDARD_WEBHOOK_REPLY_URL=url) as sending:
            (message_id,) = await sending.reply("standard", "s", "hi")
            await sending.counted(Event.REPLY_POSTPONED)
            assert sending.events.counts[Event.REPLY_AMBIGUOUS] == 0
            trace = await sending.until(message_id, lambda trace: trace.replies[0].attempts == 1)
            assert trace.replies[0].state is ReplyState.PENDING
            assert "connect" in trace.replies[0].error


@pytest.mark.parametrize(
    ("platform", "fault"),
    [
        ("standard", Fault(status=400)), ("standard", Fault(status=410)),
        ("telegram", Fault(status=403, error="Forbidden: bot was blocked by the user")),
        ("slack", Fault(error="channel_not_found")),
    ],
)  # fmt: skip
async def test_a_permanent_refusal_is_not_tried_again(sending: Sending, platform: str, fault: Fault) -> None:
    """It is said, kept with the message, and the session's next reply goes out."""
    sending.platform.script(platform, fault)
    refused, sent = await sending.reply(platform, "81", "first", "second")
    await sending.until(sent, settled(ReplyState.SENT))
    trace = await sending.store.inbox.trace(refused)
    assert trace.replies[0].state is ReplyState.FAILED
    assert trace.replies[0].error
    assert sending.events.counts[Event.REPLY_REFUSED] == 1
    assert [reply.text for reply in sending.platform.received(platform, "81")] == ["second"]


async def test_markup_that_telegram_cannot_read_goes_once_as_plain_text(sending: Sending) -> None:
    """At once; twice is a refusal."""
    words = "Bad Request: can't parse entities: Unsupported start tag"
    sending.platform.script("telegram", Fault(status=400, error=words))
    await sending.reply("telegram", "91", "**hi**")
    (reply,) = await sending.platform.arrived(1, "telegram", "91")
    assert (reply.text, "parse_mode" in reply.body) == ("hi", False)
    sending.platform.script("telegram", *[Fault(status=400, error=words)] * 2)
    (refused,) = await sending.reply("telegram", "91", "**again**")
    await sending.until(refused, settled(ReplyState.FAILED))


async def test_a_group_that_became_a_supergroup_is_followed(far_side: RunningPlatform, tmp_path: Path) -> None:
    """The later replies of its session go to the new address as well."""
    seen: list[int] = []

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "chat_id" not in body:
            return 200, {"ok": True, "result": {"id": 1}}
        seen.append(body["chat_id"])
        if body["chat_id"] == -5:
            description = "Bad Request: group chat was upgraded to a supergroup chat"
            return 400, {"ok": False, "description": description, "parameters": {"migrate_to_chat_id": -1005}}
        return 200, {"ok": True, "result": {"message_id": 5}}

    async with bot_api(answer) as url, delivering(far_side, tmp_path, TELEGRAM_API_BASE=url) as sending:
        ids = await sending.reply("telegram", "-5", "first", "second")
        await sending.until(ids[1], settled(ReplyState.SENT))
        bot_id = sending.platforms["telegram"].settings.bot_token.partition(":")[0]  # type: ignore[attr-defined]
        assert await sending.store.sessions.resolve(f"telegram:{bot_id}:-1005") == "telegram:default:-5"
    assert seen == [-5, -1005, -1005]


async def test_a_redirect_is_not_followed(sending: Sending) -> None:
    """A signed reply goes nowhere else."""
    sending.platform.script("standard", Fault(status=302))
    (message_id,) = await sending.reply("standard", "s5", "hi")
    await sending.counted(Event.REPLY_POSTPONED)
    trace = await sending.until(message_id, lambda trace: bool(trace.replies[0].error))
    assert "redirect" in trace.replies[0].error


class Here:
    """A receiver inside the process."""

    def __init__(self) -> None:
        self.got: list[str] = []

    async def take(self, reply: Reply) -> str:
        self.got.append(reply.text)
        return "here"

    async def taken(self, reply: Reply) -> None:
        self.got.append(f"recorded: {reply.text}")


async def test_a_reply_of_the_api_is_taken_inside_the_process(far_side: RunningPlatform, tmp_path: Path) -> None:
    """It is recorded as sent at once."""
    here = Here()
    async with delivering(far_side, tmp_path, {"api": here}) as sending:
        (message_id,) = await sending.reply("api", "s", "hi")
        trace = await sending.until(message_id, settled(ReplyState.SENT))
        assert (here.got, trace.replies[0].sent_id) == (["hi", "recorded: hi"], "here")


async def test_a_reply_of_a_platform_that_is_off_waits_for_it(far_side: RunningPlatform, tmp_path: Path) -> None:
    """Nothing is lost when its secrets are missing for once."""
    off = {"TELEGRAM_BOT_TOKEN": "", "TELEGRAM_SECRET_TOKEN": ""}
    async with delivering(far_side, tmp_path, None, in_english, **off) as sending:
        (message_id,) = await sending.reply("telegram", "5", "hi")
        trace = await sending.until(message_id, lambda trace: bool(trace.replies and trace.replies[0].error))
        assert trace.replies[0].state is ReplyState.PENDING
        assert "telegram is not on" in trace.replies[0].error


async def test_what_was_not_sent_is_sent_after_a_restart(far_side: RunningPlatform, tmp_path: Path) -> None:
    """At once, though the last process was sending it when it ended."""
    far_side.forget()
    far_side.script("standard", Fault(stall=True))
    before = far_side.requests
    async with delivering(far_side, tmp_path, None, TELEGRAM_BOT_TOKEN="", TELEGRAM_SECRET_TOKEN="") as sending:
        await sending.reply("standard", "s6", "hi")

        async def begun() -> bool:
            return far_side.requests > before

        await eventually(begun)
    async with delivering(far_side, tmp_path):
        (reply,) = await far_side.arrived(1, "standard", "s6")
        assert reply.text == "hi"


async def test_a_receiver_that_wants_no_wait_is_given_a_moment_all_the_same(sending: Sending) -> None:
    """Nobody makes us call in a busy loop."""
    sending.platform.script("standard", *[Fault(status=429, retry_after_s=0)] * 3)
    began = time.monotonic()
    await sending.reply("standard", "s8", "hi")
    await sending.platform.arrived(1, "standard", "s8")
    assert time.monotonic() - began > 0.7


async def test_many_sessions_are_sent_at_once_each_in_its_order(sending: Sending) -> None:
    """A hundred replies of twenty sessions."""
    for number, session in itertools.product(range(5), range(20)):
        await sending.reply("standard", f"many{session}", str(number))
    await sending.platform.arrived(100, "standard")
    for session in range(20):
        texts = [reply.text for reply in sending.platform.received("standard", f"many{session}")]
        assert texts == ["0", "1", "2", "3", "4"]


async def test_a_drain_waits_for_what_can_be_sent(sending: Sending) -> None:
    """And returns as soon as it is."""
    for session in range(10):
        await sending.reply("standard", f"drain{session}", "a", "b")
    began = time.monotonic()
    await sending.delivery.drain(10)
    assert time.monotonic() - began < 5
    assert len(sending.platform.received("standard")) == 20


async def test_a_drain_ends_at_its_time(sending: Sending) -> None:
    """A platform that never answers holds nobody up."""
    sending.platform.script("standard", Fault(stall=True))
    await sending.reply("standard", "s7", "hi")
    began = time.monotonic()
    await sending.delivery.drain(0.3)
    assert 0.25 < time.monotonic() - began < 3


async def test_the_bot_learns_its_name(tmp_path: Path) -> None:
    """From getMe, soon after the start, though the platform was down at first."""
    failures = iter([(502, {}), (429, {"ok": False})])
    known = {"ok": True, "result": {"id": 1, "is_bot": True, "username": "my_bot"}}
    async with bot_api(lambda _: next(failures, (200, known))) as url, open_test_store(tmp_path) as store:
        secrets = {"TELEGRAM_BOT_TOKEN": "1:x", "TELEGRAM_SECRET_TOKEN": "s", "TELEGRAM_API_BASE": url}
        platforms = enabled_platforms(parse_settings(secrets))
        delivery = Delivery(store, platforms, Events(), "test")
        await delivery.start()

        async def named() -> bool:
            telegram = platforms["telegram"]
            return isinstance(telegram, Telegram) and telegram.username == "my_bot"

        await eventually(named)
        await delivery.close()
