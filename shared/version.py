"""The release this is, and the name it goes by."""

from __future__ import annotations

#: the release, as the package, ``--version`` and the metrics tell it
VERSION = "0.1.0"
#: what the gateway's answers carry as ``Server``, by which the command line knows it; it tells no release to strangers
SERVER_NAME = "gatehouse"
