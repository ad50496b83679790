"""What a reply's row sends at one place: its text in one request, or its file in as many as that takes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.platforms.port import Adapter, ApiRequest, ApiResponse, Fail, SendResult
from shared.messages import Reply
from shared.texts import Texts

#: requests of one file at the most: where it goes, its bytes, and the message with it
MOST_REQUESTS = 3


class Outgoing(msgspec.Struct, frozen=True):
    """A row, and what it sends first."""

    platform: Adapter
    reply: Reply
    #: the bytes of its file, none for a text and where the place takes no files
    data: bytes
    first: ApiRequest

    def after(self, answers: Sequence[ApiResponse]) -> ApiRequest | SendResult:
        """Return what follows the answers so far: a request, or what came of the row."""
        if self.reply.file is None or not self.data:
            return self.platform.result(self.reply, answers[-1])
        following = self.platform.upload(self.reply, self.reply.file, self.data, answers)
        if following is None or (isinstance(following, ApiRequest) and len(answers) >= MOST_REQUESTS):
            return Fail("the adapter did not come to an end with the file")
        return following


def outgoing(
    platform: Adapter, reply: Reply, data: bytes, said: Texts, now: float, *, plain: bool
) -> Outgoing | SendResult:
    """Return what a row sends; where its place takes no files, a line that names the file."""
    if reply.file is None:
        return Outgoing(platform, reply, b"", platform.call(reply, now, plain=plain))
    match platform.upload(reply, reply.file, data):
        case ApiRequest() as request:
            return Outgoing(platform, reply, data, request)
        case None:
            name = reply.file.name.replace("`", "'")
            line = platform.chunks(said.file_not_sent.format(name=f"`{name}`"))[0]
            in_words = msgspec.structs.replace(reply, text=line)
            return Outgoing(platform, in_words, b"", platform.call(in_words, now, plain=plain))
        case result:
            return result
