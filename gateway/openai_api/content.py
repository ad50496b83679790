"""What the messages of a call say: their words, and the images and files among their parts.

A part brings its file in a ``data:`` url or links it by http(s). What the new message brings has to be readable; in an
earlier one, what cannot be read any more is named in its text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

import msgspec

from gateway.openai_api.chat_body import ChatMessage, ContentPart
from gateway.openai_api.json_body import invalid
from gateway.responses import Refused
from shared.attachments import AttachmentLimits, ReadUploads, Upload, image_type, read_uploads

LIMITS = AttachmentLimits()
#: roles whose messages show images and files to the model
SHOWING = frozenset({"user", "tool"})
#: of the others an image is only named
NOT_SHOWN = "[{what} of an earlier message, which is not shown any more]"
UNNAMED = "file"
WORDS = frozenset({"text", "refusal"})
LINKS = ("http://", "https://")


class FileBatch(msgspec.Struct, frozen=True):
    """The files that a call links."""

    #: each by its url, or why it could not be fetched
    by_url: Mapping[str, Upload] = {}

    def of(self, url: str) -> Upload:
        """Return a linked file."""
        return self.by_url.get(url) or Upload("", problem="a call has too many files")


NO_FILES = FileBatch()


def links_of(messages: Iterable[ChatMessage]) -> list[str]:
    """Return the urls of files that messages link, the last message's first."""
    urls = [
        url
        for message in reversed(list(messages))
        if message.role in SHOWING and isinstance(message.content, list)
        for part in message.content
        if (url := address_of(part)).lower().startswith(LINKS)
    ]
    return list(dict.fromkeys(urls))


def read_content(message: ChatMessage, files: FileBatch, param: str) -> ReadUploads:
    """Return the new message's words and images. Raises Refused for a file that cannot be taken."""
    return _read(message, [upload_of(part, files, f"{param}.{place}") for place, part in _files(message)])


def recall_content(message: ChatMessage, files: FileBatch) -> ReadUploads:
    """Return an earlier message's words and images; what cannot be taken is named among the words."""
    if message.role not in SHOWING:
        return ReadUploads(plain_text(message))
    uploads = []
    for _, part in _files(message):
        try:
            uploads.append(upload_of(part, files, ""))
        except Refused as refused:
            uploads.append(Upload(_name(part), problem=refused.detail))
    return _read(message, uploads)


def plain_text(message: ChatMessage) -> str:
    """Return what a message says without its files; those are named."""
    if not isinstance(message.content, list):
        return message.content or ""
    return "".join(
        (part.text or "") + (part.refusal or "")
        if part.type in WORDS
        else NOT_SHOWN.format(what="image" if part.type == "image_url" else "file")
        for part in message.content
    )


def is_silent(message: ChatMessage) -> bool:
    """Tell whether a message has neither a word nor a file."""
    if not isinstance(message.content, list):
        return not message.content or message.content.isspace()
    return not _files(message) and not plain_text(message).strip()


def upload_of(part: ContentPart, files: FileBatch, param: str) -> Upload:
    """Return the file of a part. Raises Refused for one that cannot be had, or is no image where one is meant."""
    url = address_of(part)
    match part.type:
        case "image_url" if url:
            where = f"{param}.image_url.url"
            upload = _content(_name(part), url, files, where)
            if not image_type(upload.data):
                raise invalid("the image is no PNG, JPEG, GIF or WebP", where, "invalid_image_format")
            if len(upload.data) > LIMITS.file_bytes:
                raise invalid(f"the image is larger than {LIMITS.file_bytes} bytes", where, "image_too_large")
            return upload
        case "file" if url:
            field = "file_data" if part.file and part.file.file_data else "file_url"
            return _content(_name(part), url, files, f"{param}.file.{field}")
        case "image_url" | "file":
            raise invalid(f"a part {part.type} has to bring its content in a data: url, or to link it", param)
        case _:
            raise invalid(f"a part {part.type} is not served: text, images and files are read", param)


def address_of(part: ContentPart) -> str:
    """Return the url of a part's file, empty where it has none."""
    match part:
        case ContentPart(type="image_url", image_url=image) if image is not None:
            return (image if isinstance(image, str) else image.url).strip()
        case ContentPart(type="file", file=file) if file is not None:
            return (file.file_data or file.file_url or "").strip()
        case _:
            return ""


def _content(name: str, url: str, files: FileBatch, param: str) -> Upload:
    """Return what lies at a url. Raises Refused."""
    if not url.lower().startswith(LINKS):
        media_type, data = read_data_url(url, param)
        return Upload(name, media_type, data)
    upload = files.of(url)
    if upload.problem:
        raise invalid(f"the file could not be fetched: {upload.problem}", param, "invalid_image_url")
    return msgspec.structs.replace(upload, name=upload.name if name == UNNAMED else name)


def read_data_url(url: str, param: str) -> tuple[str, bytes]:
    """Return the media type and the bytes of a ``data:`` url (RFC 2397). Raises Refused."""
    head, comma, data = url.partition(",")
    if head[:5].lower() != "data:" or not comma or not head.endswith(";base64"):
        raise invalid("only https, http and data: urls in base64 are read", param)
    try:
        return head[5:-7], base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("the data: url is no base64", param) from None


def _files(message: ChatMessage) -> list[tuple[int, ContentPart]]:
    parts = message.content if isinstance(message.content, list) else []
    return [(place, part) for place, part in enumerate(parts) if part.type not in WORDS]


def _read(message: ChatMessage, uploads: list[Upload]) -> ReadUploads:
    if not isinstance(message.content, list):
        return ReadUploads(message.content or "")
    words = "".join(part.text or "" for part in message.content if part.type in WORDS)
    return read_uploads(words, uploads, LIMITS)


def _name(part: ContentPart) -> str:
    if part.type == "image_url":
        return "image"
    return (part.file.filename if part.file else "") or UNNAMED
