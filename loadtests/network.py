"""Hosts of one machine with addresses of their own: network namespaces on a bridge (Linux, root, Debian's iproute2)."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Sequence
from typing import Self

import msgspec

LOOPBACK = "127.0.0.1"


class NoNamespaces(RuntimeError):
    """Raised where this machine makes no network namespaces; hosts then share the loopback address."""


class Address(msgspec.Struct, frozen=True):
    """Where a host is: its address, the command that runs programs there, its link (empty on loopback)."""

    address: str = LOOPBACK
    prefix: tuple[str, ...] = ()
    link: str = ""


class Network:
    """A bridge with one namespace a host; ``address`` is this process's own on it. Raises NoNamespaces."""

    def __init__(self) -> None:
        self._name = f"gh{os.getpid()}"
        self._subnet = f"10.231.{os.getpid() % 250}"
        self._numbers = itertools.count(2)
        self._made = contextlib.ExitStack()
        self.address = f"{self._subnet}.1"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise NoNamespaces("network namespaces need root")
        try:
            self._make(("link", "add", self._name, "type", "bridge"), ("link", "del", self._name))
            ip("addr", "add", f"{self.address}/24", "dev", self._name)
            ip("link", "set", self._name, "up")
            self.join()  # tells whether namespaces can be made
        except (OSError, subprocess.CalledProcessError) as error:
            self._made.close()
            raise NoNamespaces(str(getattr(error, "stderr", "") or error).strip()) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def join(self) -> Address:
        """Make one more host."""
        number = next(self._numbers)
        space, link = f"{self._name}n{number}", f"{self._name}v{number}"
        address = f"{self._subnet}.{number}"
        self._make(("netns", "add", space), ("netns", "del", space))
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", link, "master", self._name, "up")
        ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        return Address(address, ("ip", "netns", "exec", space), link)

    def _make(self, words: Sequence[str], end: Sequence[str]) -> None:
        ip(*words)
        self._made.callback(ip, *end)


def cut(host: Address) -> None:
    """Take a host's link down: what was sent to it or by it is lost, and nobody is told."""
    ip("link", "set", host.link, "down")


def mend(host: Address) -> None:
    """Take a host's link up."""
    ip("link", "set", host.link, "up")


def ip(*words: str) -> None:
    """Run one command of iproute2. Raises OSError and subprocess.CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
