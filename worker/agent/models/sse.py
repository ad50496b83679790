"""Server-sent events, decoded from bytes as they come."""

from __future__ import annotations

from shared.errors import ModelUnavailable

MAX_EVENT_BYTES = 8 << 20
#: what a text in UTF-8 may begin with
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: what ends a stream on OpenAI's wire; some proxies send it on the other one too, in quotes or small letters
DONE = b"[DONE]"
#: bytes below which an event may be another way to write that
_SHORT = 16


def is_done(event: bytes) -> bool:
    """Tell whether an event says that the stream has ended."""
    return event == DONE or (len(event) < _SHORT and event.strip(b' "').upper() == DONE)


class ErrorEvent(bytes):
    """The data of an event that is named ``error``."""

    __slots__ = ()


class EventDecoder:
    """Turns chunks of an event stream into the ``data`` of its events.

    Lines end with LF, CR or CRLF, and a chunk may end anywhere
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation). Of the other fields
    only the name ``error`` counts, and a field of that name; comments are passed over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._is_error = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event this chunk completed. Raises ModelUnavailable past MAX_EVENT_BYTES."""
        text = self._rest + chunk
        # A CR at the very end may be the first half of a CRLF: it waits for the next chunk.
        end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        if len(text) - end > MAX_EVENT_BYTES:
            raise ModelUnavailable(f"the stream holds an event of more than {MAX_EVENT_BYTES >> 20} MiB")
        self._rest = text[end:]
        return self._read(text[:end].splitlines())

    def end(self) -> list[bytes]:
        """Return the event that the stream ended with and did not close by a blank line, if there is one."""
        rest, self._rest = self._rest, b""
        return self._read([rest.rstrip(b"\r"), b""])

    def _read(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
        for line in lines:
            if line.startswith(b"data:"):
                data = line[6:] if line.startswith(b"data: ") else line[5:]
                while data.startswith(b"data:"):  # some proxies wrap each line once more
                    data = data[5:].lstrip(b" ")
                self._data.append(data)
            elif not line:
                if self._data:
                    data = b"\n".join(self._data)
                    events.append(ErrorEvent(data) if self._is_error else data)
                    self._data.clear()
                self._is_error = False
            elif line.startswith(b"event:"):
                self._is_error = line[6:].strip() == b"error"
            elif line.startswith(b"error:"):  # llama.cpp's field for an error
                self._data.append(line[6:].strip())
                self._is_error = True
        return events
