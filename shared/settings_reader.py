"""Reads one named value at a time and refuses what it cannot be; every refusal names the setting."""

from __future__ import annotations

import base64
import binascii
import functools
import ipaddress
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.errors import SettingsError

#: a host in the letters of the name system, every name below one, or every host; the port is optional
HOST = re.compile(r"(?:\*|(?:\*\.)?([\w-]+(?:\.[\w-]+)*)|\[([0-9a-fA-F:.]+)\])(?::([0-9]{1,5}))?", re.ASCII)
#: a variable of the environment, also as VS Code and Cursor write it: ``${env:NAME}``
VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_]\w*)(?::-([^}]*))?\}", re.ASCII)
#: what an editor would ask for or know, and nobody here does
EDITOR_VARIABLE = re.compile(r"\$\{(?:input|command|config):[^}]*\}")
DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_utf8(text: str) -> bool:
    """Tell whether a text of the environment can be written: bytes that are no UTF-8 are read as halves of pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class SettingsReader:
    """Typed access to named text values; an empty value counts as unset."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str) -> str:
        """Return the text, or the default if unset."""
        text = self._values.get(name, "").strip() or default
        if not is_utf8(text):
            raise SettingsError(name, "is not UTF-8: write it as that, or in a `.env` file")
        return text

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number in a range."""
        text = self.text(name, str(default))
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise SettingsError(name, f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    def share(self, name: str, default: float) -> float:
        """Return a part of a whole, more than 0 and 1 at the most."""
        text = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0 < float(text) <= 1:
            raise SettingsError(name, f"{text!r} is not a number from 0.01 to 1")
        return float(text)

    def seconds(self, name: str, default: float, least: float = 0.01) -> float:
        """Return a duration in seconds, a week at the most."""
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= 604_800:
            raise SettingsError(name, f"{text!r} is not a number of seconds from {least:g} to 604800")
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Return one of a few words."""
        text = self.text(name, default)
        if text not in choices:
            raise SettingsError(name, f"{text!r} is none of {', '.join(choices)}")
        return text

    def words(self, name: str) -> tuple[str, ...]:
        """Return comma-separated words, blanks removed."""
        return tuple(word for part in self.text(name, "").split(",") if (word := part.strip()))

    def dotted_names(self, name: str) -> tuple[str, ...]:
        """Return comma-separated module names."""
        for word in self.words(name):
            if not DOTTED_NAME.fullmatch(word):
                raise SettingsError(name, f"{word!r} is not a module name such as mybot.tools")
        return self.words(name)

    def hosts(self, name: str) -> tuple[str, ...]:
        """Return comma-separated hosts, each with a port or not, that may begin with ``*.`` or be ``*``."""
        for word in self.words(name):
            if not _is_host(word):
                raise SettingsError(name, f"{word!r} is no host such as example.com, *.example.com or 10.0.0.7:8080")
        return self.words(name)

    def url(self, name: str, default: str) -> str:
        """Return an http or https url as it is written; a wrong one is not shown, for it may be a key in its place."""
        text = self.text(name, default)
        if not text:
            return ""
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(name, "is not an http or https url")
        return text

    def base_url(self, name: str, default: str) -> str:
        """Return an http or https url that paths are added to, without a trailing slash."""
        return self.url(name, default).rstrip("/")

    def path(self, name: str, text: str) -> Path:
        """Return what a text names as a path, with ``~`` filled in."""
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            raise SettingsError(name, f"{text!r} begins with a home directory that there is not") from None
        if not is_utf8(str(path.absolute())):
            raise SettingsError(name, f"{str(path.absolute())!r} is not UTF-8: name a directory whose path is")
        return path

    def text_or_file(self, name: str, default: str) -> str:
        """Return the text, or with a leading @ what the file of that path holds."""
        text = self.text(name, default)
        if not text.startswith("@"):
            return text
        try:
            return self.path(name, text[1:]).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(name, f"cannot read {text[1:]!r}: {reason(error)}") from None

    def json_file(self, name: str, *keys: str) -> bytes:
        """Return the object that a JSON file holds under the first of these keys that it has, as JSON; empty if unset.

        ``${NAME}`` and ``${NAME:-default}`` in its texts stand for other values of the environment, so that the file
        needs no secret in it.
        """
        text = self.text(name, "")
        if not text:
            return b""
        try:
            content = json.loads(self.path(name, text).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise SettingsError(name, f"cannot read {text!r}: {reason(error)}") from None
        found = next((content[key] for key in keys if key in content), None) if isinstance(content, dict) else None
        if not isinstance(found, dict):
            raise SettingsError(name, f"{text!r} has no {keys[0]!r} object")
        return json.dumps(self._filled(name, found)).encode()

    def _filled(self, name: str, value: Any) -> Any:
        """Fill the variables in every text of a JSON value in."""
        match value:
            case str():
                if asked := EDITOR_VARIABLE.search(value):
                    raise SettingsError(name, f"holds {asked[0]}, which an editor fills in; write ${{NAME}} and set it")
                return VARIABLE.sub(functools.partial(self._variable, name), value)
            case list():
                return [self._filled(name, one) for one in value]
            case dict():
                return {key: self._filled(name, one) for key, one in value.items()}
            case _:
                return value

    def _variable(self, name: str, found: re.Match[str]) -> str:
        variable, default = found.groups()
        value = self._values.get(variable) or default
        if value is None:
            raise SettingsError(name, f"names ${{{variable}}}, which is not set")
        return value

    def all_or_none(self, names: Sequence[str]) -> bool:
        """Tell whether settings that only make sense together are set; some without the others are refused."""
        missing = [name for name in names if not self.text(name, "")]
        given = [name for name in names if name not in missing]
        if missing and given:
            together = "both or neither" if len(names) == 2 else "all of " + ", ".join(names) + " or none"
            raise SettingsError(missing[0], f"is not set, but {given[0]} is; set {together}")
        return not missing

    def base64_after(self, name: str, prefix: str) -> bytes:
        """Return the bytes of a prefixed base64 secret, 24 to 64 of them; missing padding is tolerated."""
        text = self.text(name, "")
        body = text.removeprefix(prefix).rstrip("=")
        try:
            secret = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not text.startswith(prefix) or not 24 <= len(secret) <= 64:
            raise SettingsError(name, f"is not {prefix} and the base64 of 24 to 64 bytes")
        return secret


def _is_host(word: str) -> bool:
    found = HOST.fullmatch(word)
    if not found:
        return False
    host, address, port = found.groups()
    try:
        (host or "").encode("idna")
        ipaddress.IPv6Address(address or "::")
    except ValueError:
        return False
    return port is None or 0 < int(port) < 65536


def reason(error: OSError | ValueError | RecursionError) -> str:
    """Return why a file cannot be read, without its path, which is said already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
