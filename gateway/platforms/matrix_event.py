"""What a homeserver pushes: the parts of events that are read, and what they say."""

from __future__ import annotations

import html
import re
from urllib.parse import unquote

import msgspec

from gateway.platforms.decode import decode_or_none
from gateway.platforms.port import File

#: messages that are a file
FILES = frozenset({"m.image", "m.file", "m.audio", "m.video"})
#: a mention that begins a formatted text: whose id, and the name that stands for it in the plain text
#: https://spec.matrix.org/latest/client-server-api/#user-and-room-mentions
MENTION = re.compile(
    r"""(?:<mx-reply>.*?</mx-reply>)?(?:<p>)?<a href=["']https://matrix\.to/#/([^"'?]+)[^>]*>([^<]*)</a>""", re.DOTALL
)


class InReplyTo(msgspec.Struct, frozen=True):
    """The event that is answered."""

    event_id: str = ""


class Relation(msgspec.Struct, frozen=True):
    """How an event relates to another."""

    rel_type: str = ""
    event_id: str = ""


class Mentions(msgspec.Struct, frozen=True):
    """Who is named; clients set it."""

    user_ids: tuple[str, ...] = ()


class FileInfo(msgspec.Struct, frozen=True):
    """What a file is."""

    mimetype: str = ""


class NewContent(msgspec.Struct, frozen=True):
    """The text of an edited message."""

    body: str = ""
    formatted_body: object = ""


class Content(msgspec.Struct, frozen=True):
    """A message's content."""

    msgtype: str = ""
    body: str = ""
    formatted_body: object = ""
    url: str = ""
    filename: str = ""
    redacts: str = ""
    info: FileInfo = FileInfo()
    relation: Relation = msgspec.field(default=Relation(), name="m.relates_to")
    mentions: Mentions | None = msgspec.field(default=None, name="m.mentions")
    new: NewContent | None = msgspec.field(default=None, name="m.new_content")

    @property
    def is_spoken(self) -> bool:
        """Whether a person says it; notices are what bots say."""
        return self.msgtype not in {"", "m.notice"}

    @property
    def files(self) -> tuple[File, ...]:
        """What is attached."""
        name = (self.filename or self.body)[:200] or "file"
        return (File(self.url, name, self.info.mimetype, url=self.url),) if self.msgtype in FILES else ()

    @property
    def words(self) -> str:
        """The text, of an edit the new one; a reply's copy of what it answers is left out.

        With a file it is the caption: what the body says beside the file's name.
        """
        if self.msgtype in FILES and self.filename in {"", self.body}:
            return ""
        text = self.new.body if self.new else self.body
        lines = text.split("\n")
        quoted = next((number for number, line in enumerate(lines) if not line.startswith("> ")), 0)
        return "\n".join(lines[quoted:]).lstrip("\n") if quoted else text

    def words_to(self, user_id: str) -> str:
        """The text without the mention of a user that begins it: their id, or the name that the client links to it."""
        markup = self.new.formatted_body if self.new else self.formatted_body
        found = MENTION.match(markup) if isinstance(markup, str) else None
        shown = html.unescape(found[2]) if found and unquote(found[1]) == user_id else ""
        words = self.words
        for name in (user_id, shown, f"@{shown}" if shown else ""):
            if name and words.startswith(name):
                return words.removeprefix(name).lstrip(":, ")
        return words

    @property
    def mentioned(self) -> tuple[str, ...]:
        """The ids of those who are named."""
        return self.mentions.user_ids if self.mentions else ()

    @property
    def thread(self) -> str:
        """The event that began the thread, empty outside of threads."""
        return self.relation.event_id if self.relation.rel_type == "m.thread" else ""

    @property
    def replaces(self) -> str:
        """The event that this one is an edit of."""
        return self.relation.event_id if self.relation.rel_type == "m.replace" else ""


class Membership(msgspec.Struct, frozen=True):
    """A change of somebody's membership."""

    membership: str = ""


class Tombstone(msgspec.Struct, frozen=True):
    """What stands at the end of a room that another one follows."""

    replacement_room: str = ""


class Event(msgspec.Struct, frozen=True):
    """One event; its content has another shape for each type."""

    type: str
    event_id: str
    room_id: str
    sender: str
    state_key: str | None = None
    redacts: str = ""
    content: msgspec.Raw = msgspec.Raw(b"{}")

    def invites(self, user_id: str) -> bool:
        """Tell whether this invites somebody into the room."""
        if self.type != "m.room.member" or self.state_key != user_id:
            return False
        return b'"invite"' in bytes(self.content) and self._membership() == "invite"

    @property
    def successor(self) -> str:
        """The room that goes on as this one, empty where none does: whoever upgrades a room leaves such a stone."""
        if self.type != "m.room.tombstone" or self.state_key != "":
            return ""
        found = decode_or_none(bytes(self.content), Tombstone)
        return found.replacement_room if found else ""

    def _membership(self) -> str:
        try:
            return msgspec.json.decode(self.content, type=Membership).membership
        except msgspec.DecodeError:
            return ""


class Named(msgspec.Struct, frozen=True):
    """The content of m.room.name, or a profile."""

    name: str = ""
    displayname: str = ""


class Transaction(msgspec.Struct, frozen=True):
    """A transaction; an event is read by itself, so that an odd one holds up no other."""

    events: tuple[msgspec.Raw, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """A part of a room's events, the newest first."""

    chunk: tuple[msgspec.Raw, ...] = ()
