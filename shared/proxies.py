"""The proxies through which this machine reaches others: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

They are read as curl and the models' SDKs read them, in capitals or small, but that this machine itself is never
reached through one.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from shared.errors import SettingsError

SCHEMES = ("http", "https")
THIS_MACHINE = "localhost,127.0.0.1,::1"


class Proxies(msgspec.Struct, frozen=True):
    """What is reached through which proxy."""

    #: the proxy's url by the scheme of what is reached through it
    by_scheme: Mapping[str, str] = {}
    #: hosts that are reached without one, comma-separated, as NO_PROXY has them
    bypass: str = ""
    #: variables that name a proxy of a kind that is not used: SOCKS
    unused: tuple[str, ...] = ()

    def of(self, scheme: str, host: str) -> str | None:
        """Return the url of the proxy through which a host is reached, None without one."""
        return None if self._bypasses(host.lower()) else self.by_scheme.get(scheme)

    def variables(self) -> dict[str, str]:
        """Return them as variables that every program understands."""
        if not self.by_scheme:
            return {}
        return {f"{scheme}_proxy": url for scheme, url in self.by_scheme.items()} | {"no_proxy": self.bypass}

    def secrets(self) -> tuple[str, ...]:
        """Return every value that no log line may show."""
        passwords = (urlsplit(url).password for url in self.by_scheme.values())
        return tuple(password for password in passwords if password)

    def _bypasses(self, host: str) -> bool:
        names = (name.strip().lower().lstrip(".") for name in self.bypass.split(","))
        return any(name and (name == "*" or host == name or host.endswith(f".{name}")) for name in names)


def read_proxies(values: Mapping[str, str]) -> Proxies:
    """Read the proxies from named values. Raises SettingsError."""
    by_scheme: dict[str, str] = {}
    unused = []
    for scheme in SCHEMES:
        name, url = _first(values, f"{scheme}_proxy", "all_proxy")
        if not url:
            continue
        if "://" not in url:
            url = f"http://{url}"
        if url.startswith("socks"):
            unused.append(name)
        else:
            _check(name, url)
            by_scheme[scheme] = url
    bypass = _first(values, "no_proxy")[1]
    if bypass != "*" and not bypass.endswith(THIS_MACHINE):
        bypass = ",".join(filter(None, (bypass, THIS_MACHINE)))
    return Proxies(by_scheme, bypass, tuple(dict.fromkeys(unused)))


def _first(values: Mapping[str, str], *names: str) -> tuple[str, str]:
    """Return the first of the variables that is set, with its name; of its two spellings the small one counts."""
    for name in (spelling for lower in names for spelling in (lower, lower.upper())):
        if value := values.get(name, "").strip():
            return name, value
    return "", ""


def _check(name: str, url: str) -> None:
    """Raise SettingsError for what is no url of a proxy; a wrong one is not shown, for it may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise SettingsError(name, "is not the url of a proxy, such as http://proxy.example.com:3128")
