"""Images in requests: each message's references become what its provider takes, or a note where it takes none.

See the vision pages of Anthropic (image blocks, also inside tool results) and OpenAI (``image_url`` parts, in
messages of the user alone).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from shared.attachments import Attachment
from shared.usage import BYTES_PER_TOKEN
from worker.agent.attachments import MARK, attached_to
from worker.agent.context.repair import IMAGE_TOKENS
from worker.agent.models.chain import Link
from worker.agent.models.port import CallWatch, ModelReply, ModelRequest
from worker.frames import ModelSpec

#: images of one request, the latest ones; providers take about so many
IMAGES_LIMIT = 20
#: and their bytes
BYTES_LIMIT = 20 * 1024 * 1024


class ImageLink:
    """A model of the chain that is given images in its provider's form, unless its settings say that it takes none."""

    def __init__(self, link: Link, spec: ModelSpec) -> None:
        self.name, self.price = link.name, link.price
        self._link = link
        parts = anthropic_parts if spec.provider == "anthropic" else openai_parts
        self._shown = None if spec.takes_images is False else parts

    async def call(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        stall_s: float = 60.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Call the model once, as ``worker.agent.models.chain.Link`` describes."""
        if any(MARK in message for message in request.messages):
            shown = shown_messages(request.messages, request.images, self._shown)
            longer = sum(map(len, shown)) - sum(map(len, request.messages))
            count = len(chosen_digests(request.messages, request.images)) if self._shown else 0
            beside = longer - count * IMAGE_TOKENS * BYTES_PER_TOKEN
            request = msgspec.structs.replace(request, messages=shown, images={}, image_bytes=beside)
        return await self._link.call(request, on_text, timeout=timeout, stall_s=stall_s, watch=watch)

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()


#: turns a message and its images into the messages that show them
Parts = Callable[[dict[str, Any], Sequence[tuple[Attachment, bytes]]], list[dict[str, Any]]]


def shown_messages(messages: Sequence[bytes], images: Mapping[str, bytes], parts: Parts | None) -> list[bytes]:
    """Return the messages as a provider takes them; without ``parts`` every image is a note."""
    chosen = chosen_digests(messages, images) if parts else frozenset()
    shown: list[bytes] = []
    behind: list[bytes] = []
    for message in messages:
        attachments = attached_to(message)
        is_tool = attachments and b'"role":"tool"' in message
        if behind and not _is_tool(message):
            shown += behind
            behind = []
        if not attachments:
            shown.append(message)
            continue
        fields = msgspec.json.decode(message)
        del fields["attachments"]
        seen = [(one, images[one.digest]) for one in attachments if one.digest in chosen]
        notes = [_note(one, taken=parts is not None) for one in attachments if one.digest not in chosen]
        fields["content"] = "\n".join(part for part in (fields.get("content") or "", *notes) if part)
        made = [msgspec.json.encode(one) for one in (parts(fields, seen) if parts and seen else [fields])]
        shown.append(made[0])
        # what a provider takes in no result of a tool follows the last one: nothing may stand between them
        if is_tool:
            behind += made[1:]
        else:
            shown += made[1:]
    return shown + behind


def chosen_digests(messages: Sequence[bytes], images: Mapping[str, bytes]) -> frozenset[str]:
    """Return which images are shown: the latest ones that are here, as many as a request may have."""
    chosen: dict[str, int] = {}
    for message in reversed(messages):
        for attachment in attached_to(message):
            data = images.get(attachment.digest)
            if data is None or attachment.digest in chosen:
                continue
            if len(chosen) == IMAGES_LIMIT or sum(chosen.values()) + len(data) > BYTES_LIMIT:
                return frozenset(chosen)
            chosen[attachment.digest] = len(data)
    return frozenset(chosen)


def anthropic_parts(message: dict[str, Any], images: Sequence[tuple[Attachment, bytes]]) -> list[dict[str, Any]]:
    """Return the message with its images as blocks of its content."""
    blocks: list[dict[str, Any]] = [
        {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": _base64(data)}}
        for image, data in images
    ]
    text = message["content"]
    return [message | {"content": [*blocks, *([{"type": "text", "text": text}] if text.strip() else [])]}]


def openai_parts(message: dict[str, Any], images: Sequence[tuple[Attachment, bytes]]) -> list[dict[str, Any]]:
    """Return the message with its images as parts; a tool's result cannot have any, so the user shows them."""
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{_base64(data)}"}}
        for image, data in images
    ]
    if message["role"] == "tool":
        told = {"type": "text", "text": f"[images that {message.get('name') or 'the tool'} returned]"}
        return [message, {"role": "user", "content": [told, *parts]}]
    text = message["content"]
    return [message | {"content": [*([{"type": "text", "text": text}] if text.strip() else []), *parts]}]


def _is_tool(message: bytes) -> bool:
    return b'"role":"tool"' in message


def _note(image: Attachment, *, taken: bool) -> str:
    reason = "it is not shown any more" if taken else "this model cannot see images"
    return f"[image {image.name}, {image.media_type}, {image.size_bytes} bytes: {reason}]"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
