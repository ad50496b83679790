"""A person on Matrix who uses matrix-nio: matrix_person.py HOMESERVER USER PASSWORD BOT.

Talks with the bot in a room of two: in the room, in a thread, by an edit of what waits, with a picture. Writes one JSON
object: by case the answers, each as the library reads it, and whether the bot was seen typing.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from typing import Any

import nio

#: one red point
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
LONGEST_S = 60.0


class Person:
    """A client that is signed in, and what it has heard from the bot."""

    def __init__(self, client: nio.AsyncClient, bot: str) -> None:
        self.client, self.bot = client, bot
        self.room = ""
        self.typed = False
        self.heard: list[nio.RoomMessageText] = []
        client.add_event_callback(self.on_text, nio.RoomMessageText)
        client.add_ephemeral_callback(self.on_typing, nio.TypingNoticeEvent)

    def on_text(self, _room: nio.MatrixRoom, event: nio.RoomMessageText) -> None:
        if event.sender == self.bot:
            self.heard.append(event)

    def on_typing(self, _room: nio.MatrixRoom, event: nio.TypingNoticeEvent) -> None:
        self.typed = self.typed or self.bot in event.users

    async def meet(self) -> None:
        """Make a room and wait until the bot is in it."""
        made = await self.client.room_create(is_direct=True, invite=[self.bot])
        self.room = made.room_id
        async with asyncio.timeout(LONGEST_S):
            while self.bot not in getattr(self.client.rooms.get(self.room), "users", {}):
                await self.client.sync(1000)

    async def say(self, body: str, **content: Any) -> str:
        sent = await self.client.room_send(
            self.room, "m.room.message", {"msgtype": "m.text", "body": body, **content}, ignore_unverified_devices=True
        )
        return str(sent.event_id)

    async def answer(self, text: str) -> dict[str, Any]:
        """Wait for an answer with a text, at first or after edits; return it as the library reads it."""
        async with asyncio.timeout(LONGEST_S):
            while True:
                for event in self.heard:
                    content = event.source["content"]
                    if text in content.get("m.new_content", content)["body"]:
                        relation = content.get("m.relates_to", {})
                        return {"body": event.body, "html": event.formatted_body, "relation": relation}
                await self.client.sync(1000)


async def talk(person: Person) -> dict[str, Any]:
    await person.meet()
    found: dict[str, Any] = {}
    await person.say("[[sleep 3]] [[say **bold** and `code <b>`]]")
    found["room"] = await person.answer("bold")
    root = await person.say("[[say so it begins]]")
    await person.answer("so it begins")
    thread = {"rel_type": "m.thread", "event_id": root, "is_falling_back": True, "m.in_reply_to": {"event_id": root}}
    await person.say("[[say in the thread]]", **{"m.relates_to": thread})
    found["thread"] = await person.answer("in the thread")
    await person.say("[[sleep 4]] [[say first]]")
    waits = await person.say("[[say old]]")
    new = {"msgtype": "m.text", "body": "[[say new]]"}
    await person.say(
        "* [[say new]]", **{"m.new_content": new, "m.relates_to": {"rel_type": "m.replace", "event_id": waits}}
    )
    gone = await person.say("[[say gone]]")
    await person.client.room_redact(person.room, gone)
    found["edited"] = await person.answer("new")
    uploaded, _ = await person.client.upload(io.BytesIO(PNG), "image/png", "point.png", filesize=len(PNG))
    await person.say("point.png", msgtype="m.image", url=uploaded.content_uri, info={"mimetype": "image/png"})
    await person.say("[[say it was red]]")
    found["picture"] = await person.answer("it was red")
    found["typed"] = person.typed
    found["bodies"] = [event.body for event in person.heard]
    return {**found, "root": root}


async def main(homeserver: str, user: str, password: str, bot: str) -> None:
    client = nio.AsyncClient(homeserver, user)
    try:
        signed_in = await client.login(password)
        assert isinstance(signed_in, nio.LoginResponse), signed_in
        await client.sync(0)
        sys.stdout.write(json.dumps(await talk(Person(client, bot))))
    finally:
        await client.close()


asyncio.run(main(*sys.argv[1:]))
