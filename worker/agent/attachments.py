"""Images of transcript messages: the references that a message carries, and their bytes in a worker.

A message names its images under ``attachments``, a key that no provider sees: ``models/images.py`` puts the images in
its place when a model is called.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from shared.attachments import Attachment

#: bytes of images that a worker holds
CACHE_BYTES = 64 * 1024 * 1024
#: what a message with images has in its bytes
MARK = b'"attachments":'


class _Attached(msgspec.Struct):
    attachments: tuple[Attachment, ...] = ()


_DECODER = msgspec.json.Decoder(_Attached)


class AttachmentCache:
    """The bytes of images by session and digest, those used last; one loop uses it."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._held_bytes = 0

    def get(self, session: str, digest: str) -> bytes | None:
        """Return the bytes of an image, None if they are not held."""
        data = self._held.get((session, digest))
        if data is not None:
            self._held.move_to_end((session, digest))
        return data

    def put(self, session: str, digest: str, data: bytes) -> None:
        """Hold the bytes of an image."""
        self._drop((session, digest))
        self._held[session, digest] = data
        self._held_bytes += len(data)
        while self._held_bytes > self._limit_bytes:
            self._drop(next(iter(self._held)))

    def forget(self, session: str) -> None:
        """Drop the images of a session that is gone."""
        for key in [key for key in self._held if key[0] == session]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        self._held_bytes -= len(self._held.pop(key, b""))


def attached_to(message: bytes) -> tuple[Attachment, ...]:
    """Return the images of a transcript message; most have none, which takes no decoding to see."""
    if MARK not in message:
        return ()
    try:
        return _DECODER.decode(message).attachments
    except msgspec.DecodeError:
        return ()


def with_attachments(message: bytes, attachments: Sequence[Attachment]) -> bytes:
    """Return a transcript message with these images."""
    if not attachments:
        return message
    return message[:-1] + b"," + MARK + msgspec.json.encode(attachments) + b"}"
