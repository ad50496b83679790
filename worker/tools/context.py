"""What a tool may know of the call it serves."""

from __future__ import annotations

import asyncio
import mimetypes
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shared.attachments import MOST_GIVEN, Attachment, attach, image_type
from shared.errors import ToolError
from shared.journal import idempotency_key

#: bytes of the largest image that a result shows
IMAGE_LIMIT_BYTES = 5 * 1024 * 1024
#: bytes of the largest file for the chat: what Discord takes, the least of the platforms that take more than images
FILE_LIMIT_BYTES = 10 * 1024 * 1024
#: what a file is called whose tool does not say
ANY_TYPE = "application/octet-stream"
MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}", re.ASCII)


class TodoList(Protocol):
    """The session's todo list, as the todo tool calls it."""

    def call(self, arguments: Mapping[str, Any]) -> str:
        """Change or read the list, and return all of it as JSON; what cannot be done is an error result."""


class ToolContext:
    """One tool call as its tool sees it: annotate a parameter with this class and it is filled in, unseen by the model.

    ``session`` and ``message_id`` say whose call it is; ``call_id`` is the model's id of it, ``step`` the step that
    asked for it; ``todo`` the session's todo list. Made on the loop that runs the turn.
    """

    __slots__ = (
        "_attached",
        "_given",
        "_loop",
        "_say",
        "_stopped",
        "_thread",
        "call_id",
        "message_id",
        "session",
        "step",
        "todo",
    )

    def __init__(
        self,
        session: str,
        message_id: str,
        call_id: str,
        todo: TodoList,
        say: Callable[[str], None] = lambda _: None,
        step: int = 1,
    ) -> None:
        self.session = session
        self.message_id = message_id
        self.call_id = call_id
        self.step = step
        self.todo = todo
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stopped = threading.Event()
        self._attached: list[tuple[Attachment, bytes]] = []
        self._given: list[tuple[Attachment, bytes]] = []

    @property
    def idempotency_key(self) -> str:
        """A key that names this call on every attempt at it, for an outside service that takes one."""
        return idempotency_key(self.message_id, self.step, self.call_id)

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for this call any more; a long sync tool looks at it and ends."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Tell the tool that nobody waits for it any more."""
        self._stopped.set()

    def wait_stopped(self, within_s: float) -> bool:
        """Sleep up to ``within_s`` seconds in a sync tool; True as soon as the call is stopped."""
        return self._stopped.wait(within_s)

    @property
    def attached(self) -> tuple[tuple[Attachment, bytes], ...]:
        """The images of the call's result so far, each with its bytes."""
        return tuple(self._attached)

    def attach(self, data: bytes, name: str = "image") -> None:
        """Show an image (PNG, JPEG, GIF or WebP) with the result, to models that see images; from any thread.

        Raises ToolError for anything else, and for one of more than 5 MiB.
        """
        kind = image_type(data)
        if not kind:
            raise ToolError("what is to be shown is no PNG, JPEG, GIF or WebP image")
        if len(data) > IMAGE_LIMIT_BYTES:
            raise ToolError(f"an image of {len(data)} bytes is not shown; {IMAGE_LIMIT_BYTES} are the most")
        self._attached.append((attach(name, kind, data), data))

    @property
    def given(self) -> tuple[tuple[Attachment, bytes], ...]:
        """The files for the chat so far, each with its bytes."""
        return tuple(self._given)

    def send_file(self, data: bytes, name: str, media_type: str = "") -> None:
        """Send a file of any kind to the chat, behind the turn's answer; from any thread.

        Without a media type its name tells it. Raises ToolError for an empty one, for one of more than 10 MiB, and for
        more than ten of one call.
        """
        if not data:
            raise ToolError(f"the file {name!r} is empty, and is not sent")
        if len(data) > FILE_LIMIT_BYTES:
            raise ToolError(f"a file of {len(data)} bytes is not sent; {FILE_LIMIT_BYTES} are the most")
        if len(self._given) >= MOST_GIVEN:
            raise ToolError(f"one answer has at most {MOST_GIVEN} files")
        kind = (media_type or mimetypes.guess_type(name)[0] or ANY_TYPE).strip().lower()
        if not MEDIA_TYPE.fullmatch(kind):
            raise ToolError(f"{media_type!r} is no media type; text/csv is one")
        self._given.append((attach(name, kind, bytes(data)), bytes(data)))

    def say(self, text: str) -> None:
        """Tell how far the call is; from any thread."""
        if threading.get_ident() == self._thread:
            self._say(text)
        else:
            self._loop.call_soon_threadsafe(self._say, text)
