"""Synapse as the other side of the Matrix adapter: what people do there, and either side failing in between."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess
from loadtests.provider import RunningProvider, running_provider
from tests.real.faulty_proxy import FaultyProxy
from tests.real.foreign import ForeignServer, wait_until
from tests.real.homeserver import AS_TOKEN, BOT, HS_TOKEN, Person, make_homeserver

KEY = "a-key-for-the-tests-of-real-servers"


class Town:
    """A homeserver with two users, and a gateway that is the bot there; both directions pass a proxy that can fail."""

    def __init__(
        self,
        gateway: GatewayProcess,
        synapse: ForeignServer,
        pushes: FaultyProxy,
        sends: FaultyProxy,
        people: tuple[Person, Person],
        provider: RunningProvider,
    ) -> None:
        self.gateway = gateway
        self.synapse = synapse
        self.pushes = pushes
        self.sends = sends
        self.ana, self.bob = people
        self.provider = provider

    def room(self, *, direct: bool = True) -> str:
        """Make a room of ana's, with bob unless it is direct, and wait until the bot is in it."""
        guests = () if direct else (self.bob.user_id,)
        room = self.ana.room(BOT, *guests, direct=direct)
        if not direct:
            self.bob.join(room)
        wait_until(lambda: BOT in self.ana.members(room), 30, "the bot joins")
        return room

    def wait_for_answers(self, room: str, *texts: str, within_s: float = 40) -> None:
        """Wait until the bot wrote so many texts, and compare them."""
        wait_until(
            lambda: len(self.ana.answers(room)) >= len(texts), within_s, f"{texts}; {self.gateway.log()[-6000:]}"
        )
        assert self.ana.answers(room) == list(texts)

    def start_again(self) -> None:
        """Start the gateway that was killed, and let the homeserver reach it at its new port."""
        self.gateway.start()
        self.pushes.target = self.gateway.url


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with make_town(tmp_path_factory) as town:
        yield town


@contextmanager
def make_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Run a homeserver with two people, and a gateway beside it."""
    directory = tmp_path_factory.mktemp("synapse")
    with (
        running_provider() as provider,
        FaultyProxy() as pushes,
        FaultyProxy() as sends,
        make_homeserver(directory, f"{pushes.url}/webhooks/matrix") as synapse,
    ):
        sends.target = synapse.url
        ana, bob = (Person(synapse, directory, name) for name in ("ana", "bob"))
        settings = {
            "MATRIX_API_BASE": sends.url,
            "MATRIX_USER_ID": BOT,
            "MATRIX_AS_TOKEN": AS_TOKEN,
            "MATRIX_HS_TOKEN": HS_TOKEN,
            "GATEHOUSE_API_KEYS": KEY,
            "GATEHOUSE_ALLOW": "matrix:*",
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.url + "/v1",
        }
        register(synapse)
        with GatewayProcess(tmp_path_factory.mktemp("gateway"), settings) as gateway:
            pushes.target = gateway.url
            yield Town(gateway, synapse, pushes, sends, (ana, bob), provider)
        ana.close()
        bob.close()


def register(synapse: ForeignServer) -> None:
    """Make the bot's account and device, as ``gateway connect matrix`` does."""
    body = {"type": "m.login.application_service", "username": "gatehouse", "device_id": "GATEHOUSE"}
    headers = {"authorization": f"Bearer {AS_TOKEN}"}
    answer = httpx2.post(f"{synapse.url}/_matrix/client/v3/register", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text


def test_a_direct_chat_is_answered_once_each_in_order(town: Town) -> None:
    room = town.room()
    for number in range(5):
        town.ana.say(room, f"[[say answer {number}]]")
        town.wait_for_answers(room, *(f"answer {one}" for one in range(number + 1)))


def test_what_is_written_before_the_bot_has_joined_is_answered(town: Town) -> None:
    """Clients make the room, invite and write in one go; the homeserver pushes only what comes after the join."""
    for number in range(5):
        room = town.ana.room(BOT)
        town.ana.say(room, f"[[say at once {number}]]")
        town.wait_for_answers(room, f"at once {number}")


def test_typing_is_shown_while_a_turn_runs(town: Town) -> None:
    room = town.room()
    since = town.ana.ask("GET", "sync?timeout=0")["next_batch"]
    town.ana.say(room, "[[sleep 4]] [[say done]]")

    def types() -> bool:
        nonlocal since
        new = town.ana.ask("GET", f"sync?timeout=1000&since={since}")
        since = new["next_batch"]
        shown = new.get("rooms", {}).get("join", {}).get(room, {}).get("ephemeral", {}).get("events", [])
        return any(BOT in event["content"].get("user_ids", []) for event in shown)

    wait_until(types, 20, "the bot types")
    town.wait_for_answers(room, "done")


def test_a_room_of_three_is_answered_where_the_bot_is_named_and_in_its_threads(town: Town) -> None:
    room = town.room(direct=False)
    named: dict[str, Any] = {"m.mentions": {"user_ids": [BOT]}}
    town.bob.say(room, "[[say to nobody]]")
    root = town.bob.say(room, f"{BOT}: [[say in the room]]", **named)
    town.wait_for_answers(room, "in the room")
    thread = {"rel_type": "m.thread", "event_id": root, "is_falling_back": True, "m.in_reply_to": {"event_id": root}}
    town.ana.say(room, "[[say in the thread]]", **named, **{"m.relates_to": thread})
    town.wait_for_answers(room, "in the room", "in the thread")
    answers = town.ana.events(room, lambda event: event["sender"] == BOT and event["type"] == "m.room.message")
    relations = [event["content"].get("m.relates_to", {}) for event in answers]
    assert any(one.get("rel_type") == "m.thread" and one["event_id"] == root for one in relations)
    sessions = {row["key"] for row in town.gateway.get("/v1/sessions")["sessions"]}
    assert len([key for key in sessions if key.startswith("matrix:")]) >= 4  # a thread has a session of its own


def test_edits_and_redactions_amend_what_waits_and_are_no_messages(town: Town) -> None:
    room = town.room()
    town.ana.say(room, "[[sleep 6]] [[say first]]")
    wait_until(lambda: town.provider.running > 0, 30, "the turn runs")
    edited = town.ana.say(room, "[[say old]]")
    replaced = {"rel_type": "m.replace", "event_id": edited}
    new = {"msgtype": "m.text", "body": "[[say new]]"}
    town.ana.say(room, "* [[say new]]", **{"m.new_content": new, "m.relates_to": replaced})
    gone = town.ana.say(room, "[[say gone]]")
    town.ana.redact(room, gone)
    town.ana.say(room, "[[say finally]]")
    wait_until(lambda: "finally" in "\n".join(town.ana.answers(room)), 40, town.gateway.log()[-3000:])
    assert town.ana.answers(room)[-3:] == ["first", "new", "finally"]


def test_a_transaction_that_is_repeated_starts_one_turn(town: Town) -> None:
    room = town.room()
    event = {"type": "m.room.message", "event_id": "$repeated", "room_id": room, "sender": town.ana.user_id}
    content = {"msgtype": "m.text", "body": "[[say once]]"}
    body = {"events": [{**event, "origin_server_ts": 1, "content": content}], "ephemeral": []}
    headers = {"authorization": f"Bearer {HS_TOKEN}"}
    url = f"{town.gateway.url}/webhooks/matrix/_matrix/app/v1/transactions"
    for number in ("one", "one", "two"):
        assert httpx2.put(f"{url}/{number}", json=body, headers=headers, timeout=30).status_code == 200
    town.ana.say(room, "[[say next]]")
    town.wait_for_answers(room, "once", "next")
    assert httpx2.put(f"{url}/three", json=body, headers={"authorization": "Bearer no"}, timeout=30).status_code == 401


def test_what_came_while_the_gateway_answered_503_arrives_in_order(town: Town) -> None:
    room = town.room()
    back_at = time.monotonic() + 10
    town.pushes.refuse = True
    for number in range(4):
        town.ana.say(room, f"[[say late {number}]]")
    wait_until(lambda: time.monotonic() > back_at, 20, "ten seconds are over")
    assert town.ana.answers(room) == []
    town.pushes.refuse = False
    wait_until(lambda: "late 3" in "\n".join(town.ana.answers(room)), 60, "all are answered")
    assert_in_order("\n".join(town.ana.answers(room)), [f"late {number}" for number in range(4)])


def test_a_gateway_killed_between_its_commit_and_its_answer_runs_one_turn(town: Town) -> None:
    room = town.room()
    town.pushes.swallow_answers = True  # the homeserver never sees the 200
    town.ana.say(room, "[[sleep 1]] [[say once]]")
    wait_until(lambda: town.pushes.swallowed > 0, 30, "it is committed")
    town.gateway.kill_tree()
    town.pushes.swallow_answers = False
    town.start_again()
    town.ana.say(room, "[[say after]]")
    town.wait_for_answers(room, "once", "after", within_s=90)


def test_a_homeserver_killed_between_our_send_and_our_note_of_it_has_one_event(town: Town) -> None:
    room = town.room()
    town.ana.say(room, "[[say before]]")
    town.wait_for_answers(room, "before")
    town.sends.swallow_answers = True  # it has the event, and we do not know
    town.sends.only = "/send/"
    swallowed = town.sends.swallowed
    town.ana.say(room, "[[say once]]")
    wait_until(lambda: town.sends.swallowed > swallowed, 30, "it is sent")
    town.synapse.kill()
    town.sends.swallow_answers = False
    town.synapse.start()
    town.ana.say(room, "[[say after]]")
    town.wait_for_answers(room, "before", "once", "after", within_s=90)
    sent = town.ana.events(room, lambda event: event["sender"] == BOT and event["type"] == "m.room.message")
    assert len({event["event_id"] for event in sent}) == len(sent)


def assert_in_order(text: str, parts: list[str]) -> None:
    """Check that each part stands in the text once, one after the other."""
    assert [text.count(part) for part in parts] == [1] * len(parts), text
    places = [text.index(part) for part in parts]
    assert places == sorted(places), json.dumps(text)
