"""What whoever sends replies knows of the other hosts that share the database."""

from __future__ import annotations

from typing import Protocol


class OtherHosts(Protocol):
    """What the pool knows of the other hosts that share the database."""

    @property
    def fenced(self) -> bool:
        """Whether this host could not renew its lease: others may send what it has leased."""

    def sends(self, platform: str) -> bool:
        """Tell whether replies of a platform are this gateway's to send, as long as it does."""

    def tell_senders(self) -> None:
        """Tell the other gateways that a reply may be due."""


class Alone:
    """The hosts of a gateway that shares its database with no other."""

    fenced = False

    def sends(self, platform: str) -> bool:  # noqa: ARG002 - it sends everything
        """Tell whether replies of a platform are this gateway's to send: all are."""
        return True

    def tell_senders(self) -> None:
        """There are none."""
