"""Server-sent events, decoded from bytes as they come."""

from __future__ import annotations

from shared.errors import ModelUnavailable

MAX_EVENT_BYTES = 8 << 20


class EventDecoder:
    """Turns chunks of an event stream into the ``data`` of its events; other fields and comments are passed over.

    Lines end with LF, CR or CRLF, and a chunk may end anywhere
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event this chunk completed. Raises ModelUnavailable past MAX_EVENT_BYTES."""
        text = self._rest + chunk
        # A CR at the very end may be the first half of a CRLF: it waits for the next chunk.
        end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        if len(text) - end > MAX_EVENT_BYTES:
            raise ModelUnavailable(f"the stream holds an event of more than {MAX_EVENT_BYTES >> 20} MiB")
        self._rest = text[end:]
        events: list[bytes] = []
        for line in text[:end].splitlines():
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        return events
