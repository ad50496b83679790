"""What one part of a check found."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """What one part of the check found."""

    #: what was checked
    part: str
    #: whether the gateway can work with it
    ok: bool
    #: what is wrong, or what there is to know
    text: str = "ok"
