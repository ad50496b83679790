"""Files that people send: what they are, which of them a model can read, and what is said of the others.

    platform or API ── Upload ──> read_uploads ──┬── text files: joined to the message's text
                                                 ├── images: bytes in the store, an Attachment in the transcript
                                                 └── the rest: named in the text, with the reason

    tool ── send_file ──> bytes in the store, an Attachment in its result ──> files_given ──> a reply of its own

A transcript message holds an Attachment, never the bytes; a worker asks for those once and shows them to a model.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from typing import Protocol

import msgspec

#: images that models take, by what their bytes begin with
IMAGE_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
#: media types that are text though their name does not begin with it
TEXT_TYPES = frozenset(
    "application/json application/xml application/yaml application/x-yaml application/toml application/javascript "
    "application/x-sh application/x-ndjson application/sql application/csv".split()
)
#: how a name may end whose media type tells nothing
TEXT_ENDINGS = frozenset(
    "txt md csv tsv json jsonl xml yaml yml toml ini cfg conf log py js ts tsx jsx java c h cpp hpp cs go rs rb php sh "
    "sql html css tex rst diff patch env".split()
)


#: files that go out with one answer
MOST_GIVEN = 10
#: what a tool's result with files for the chat has in its bytes: JSON text would have its quotes escaped
GIVEN_MARK = b'"files":'


class AttachmentLimits(msgspec.Struct, frozen=True):
    """How much of what people send is taken."""

    #: bytes of one image
    file_bytes: int = 5 * 1024 * 1024
    #: files of one message
    files: int = 10
    #: characters of one text file that a model reads
    text_chars: int = 50_000


class Upload(msgspec.Struct, frozen=True):
    """One file as it came, or why it did not come."""

    name: str
    #: as its sender or platform tells it; empty where nobody does
    media_type: str = ""
    data: bytes = b""
    #: why there are no bytes, in words for the model; empty where there are
    problem: str = ""


class Attachment(msgspec.Struct, frozen=True):
    """An image of a message or a file for its chat, by reference; or a file that is still at its platform."""

    name: str
    media_type: str
    size_bytes: int
    #: names its bytes within its session: their SHA-256 in hexadecimal digits
    digest: str
    #: what its platform's adapter fetches it by, as JSON; empty where its bytes are in the store
    source: bytes = b""


class _Given(msgspec.Struct):
    role: str = ""
    files: tuple[Attachment, ...] = ()


def upload_key(file: Attachment) -> str:
    """Return the name under which one gateway keeps a file for the host that asked for it."""
    return f"fetched {hashlib.sha256(file.source).hexdigest()}"


class FileSource(Protocol):
    """Where files are fetched that a message came with; the gateway's."""

    async def fetch(self, platform: str, file: Attachment) -> Upload:
        """Return a file, or why it cannot be had; never raises."""


class ReadUploads(msgspec.Struct, frozen=True):
    """What a message is with its files."""

    #: what the sender wrote, the text files, and what is said of files that cannot be read
    text: str
    #: the images
    attachments: tuple[Attachment, ...] = ()
    #: the bytes of the images, by digest
    data: dict[str, bytes] = {}


def read_uploads(text: str, uploads: Iterable[Upload], limits: AttachmentLimits) -> ReadUploads:
    """Sort a message's files: text joins its words, images are attached, what cannot be read is named."""
    notes: list[str] = []
    images: list[Attachment] = []
    data: dict[str, bytes] = {}
    for number, upload in enumerate(uploads, 1):
        kind = image_type(upload.data)
        if number > limits.files:
            notes.append(_note(upload, f"a message has at most {limits.files} files"))
        elif upload.problem:
            notes.append(_note(upload, upload.problem))
        elif len(upload.data) > limits.file_bytes:
            notes.append(_note(upload, f"it has {len(upload.data)} bytes, and {limits.file_bytes} are taken"))
        elif kind:
            attachment = attach(upload.name, kind, upload.data)
            images.append(attachment)
            data[attachment.digest] = upload.data
        elif (words := _words(upload)) is not None:
            notes.append(_file_text(upload.name, words, limits.text_chars))
        else:
            notes.append(_note(upload, f"a file of type {upload.media_type or 'unknown'} cannot be read here"))
    whole = "\n\n".join(part for part in (text, *notes) if part)
    return ReadUploads(whole, tuple(images), data)


def with_files(message: bytes, files: Iterable[Attachment]) -> bytes:
    """Return a transcript message with files for the chat, under a key that no model sees."""
    given = tuple(files)
    return message[:-1] + b"," + GIVEN_MARK + msgspec.json.encode(given) + b"}" if given else message


def files_given(messages: Iterable[bytes]) -> tuple[Attachment, ...]:
    """Return the files that the tools of a turn gave for the chat, each once, as many as one answer has."""
    found: dict[tuple[str, str], Attachment] = {}
    for message in messages:
        if GIVEN_MARK not in message:
            continue
        with contextlib.suppress(msgspec.DecodeError):
            given = msgspec.json.decode(message, type=_Given)
            found |= {(one.name, one.digest): one for one in given.files if given.role == "tool"}
    return tuple(found.values())[:MOST_GIVEN]


def attach(name: str, media_type: str, data: bytes) -> Attachment:
    """Return the reference to an image, or to a file for the chat."""
    return Attachment(_plain(name), media_type, len(data), hashlib.sha256(data).hexdigest())


def image_type(data: bytes) -> str:
    """Return the media type of an image that models take, told by its bytes; empty for anything else."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for begin, kind in IMAGE_SIGNATURES.items() if data.startswith(begin)), "")


def _words(upload: Upload) -> str | None:
    """Return the text of a text file, None for any other."""
    kind = upload.media_type.partition(";")[0].strip().lower()
    ending = upload.name.rpartition(".")[2].lower()
    if not (
        kind.startswith("text/") or kind in TEXT_TYPES or kind.endswith(("+json", "+xml")) or ending in TEXT_ENDINGS
    ):
        return None
    if b"\x00" in upload.data:
        return None
    try:
        return upload.data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return upload.data.decode("cp1252", "replace")


def _file_text(name: str, words: str, limit_chars: int) -> str:
    cut = f"\n[cut: {limit_chars} of {len(words)} characters are shown]" if len(words) > limit_chars else ""
    return f"[file {_plain(name)}]\n{words[:limit_chars]}{cut}\n[end of file {_plain(name)}]"


def _note(upload: Upload, problem: str) -> str:
    return f"[file {_plain(upload.name)}: not read, {problem}]"


def _plain(name: str) -> str:
    """Return a sender's file name as one short printable line, which cannot pass for anything else."""
    return "".join(sign if sign.isprintable() and sign not in "[]" else "_" for sign in name)[:100] or "unnamed"
