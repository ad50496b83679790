"""Makes a message to accept of what somebody said in a chat."""

from __future__ import annotations

import msgspec

from gateway.platforms.port import MOST_TEXT, Adapter, File, Inbound
from shared.attachments import Attachment, AttachmentLimits, read_uploads
from shared.command import Command
from shared.errors import RequestRejected
from shared.messages import Arrival


def arrival_of(
    platform: Adapter,
    inbound: Inbound,
    at: float,
    limits: AttachmentLimits,
    message_id: str,
    *,
    command: Command | None = None,
    traceparent: str = "",
    debounce_s: float = 0.0,
) -> Arrival:
    """Return an event as a message of this id; ``at`` is unix seconds."""
    waiting, named = files_of(platform, inbound)
    read = read_uploads(text_of(inbound, named), inbound.uploads, limits)
    return Arrival(
        id=message_id,
        session=inbound.session,
        platform=platform.name,
        user=inbound.user,
        text=read.text,
        reply=inbound.reply,
        dedupe=inbound.dedupe,
        dedupe_ttl_s=platform.capabilities.dedupe_ttl_s,
        at=at,
        traceparent=traceparent,
        quiet_s=0.0 if command else max(debounce_s, inbound.gather_s),
        command=command,
        attachments=(*read.attachments, *waiting),
        attachment_data=read.data,
        title=inbound.title,
    )


def files_of(platform: Adapter, inbound: Inbound) -> tuple[tuple[Attachment, ...], str]:
    """Return the files that are to be fetched when the message's turn begins, and what is said of all of them."""
    waiting = tuple(
        Attachment(file.name, file.media, file.size_bytes, "", msgspec.json.encode(file))
        for file in inbound.files
        if can_fetch(platform, file)
    )
    names = [file.name for file in inbound.files]
    if not names:
        return (), ""
    return waiting, f"(attached{'' if waiting else ', not readable here'}: {', '.join(names)})"


def can_fetch(platform: Adapter, file: File) -> bool:
    """Tell whether a platform has a door for a file."""
    try:
        return platform.fetch(file) is not None
    except RequestRejected:  # its id is none
        return False


def text_of(inbound: Inbound, attached: str) -> str:
    """Return what the model reads of an event, its files named."""
    return "\n".join(part for part in (inbound.prompt, attached) if part)[:MOST_TEXT]
