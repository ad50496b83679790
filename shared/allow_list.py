"""Which urls may be fetched: hosts by name, none that leads into a private network unless it is listed itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from yarl import URL

from shared.errors import ToolError
from shared.public_address import is_public

#: the ports of an entry that names none
WEB_PORTS = frozenset({80, 443})


class AllowList:
    """The hosts that may be fetched.

    An entry is a host (``example.com``), every name below one (``*.example.com``), or ``*`` for every public host; with
    a port (``10.0.0.7:8080``) it means that port, else 80 and 443.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = tuple(entries)
        self._exact: set[tuple[str, int]] = set()
        self._below: set[tuple[str, int]] = set()
        for entry in self.entries:
            self._add(entry)

    def check(self, url: URL) -> bool:
        """Tell whether the url's host is listed itself, so that it may be private.

        Raises ToolError for a url that may not be fetched.
        """
        if url.scheme not in {"http", "https"} or not url.raw_host:
            raise ToolError("only http and https urls can be fetched, such as https://example.com/page")
        if url.user is not None or url.password is not None:
            raise ToolError("a url with a user or a password in it is not fetched")
        host, port = _plain(url.raw_host), url.port or 0
        if (host, port) in self._exact:
            return True
        if not any((above, port) in self._below for above in ("", *_above(host))):
            raise ToolError(f"{url.host}:{port} may not be fetched; these hosts may: {', '.join(self.entries)}")
        self._refuse_private(url)
        return False

    @staticmethod
    def _refuse_private(url: URL) -> None:
        try:
            address = ipaddress.ip_address(url.raw_host or "")
        except ValueError:
            return  # a name: what it leads to is checked when it is looked up
        if not is_public(address):
            raise ToolError(f"{url.host} is an address of a private network and not listed itself")

    def _add(self, entry: str) -> None:
        name, port = _split(entry)
        ports = WEB_PORTS if port is None else {port}
        if name == "*":
            self._below |= {("", port) for port in ports}
        elif name.startswith("*."):
            self._below |= {(_canonical(name[2:]), port) for port in ports}
        else:
            self._exact |= {(_canonical(name), port) for port in ports}


def _split(entry: str) -> tuple[str, int | None]:
    name, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and not (":" in name and not name.endswith("]")):
        return name, int(port)
    return entry, None


def _canonical(name: str) -> str:
    return _plain(URL.build(scheme="http", host=name.strip("[]")).raw_host or "")


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _above(host: str) -> Iterable[str]:
    """Yield every name that a host lies below."""
    while "." in host:
        host = host.partition(".")[2]
        yield host
