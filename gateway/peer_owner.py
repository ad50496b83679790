"""Whose program is at the other end of a connection inside this machine, as Linux tells (sock_diag(7)).

A reverse proxy need not show itself in what it sends (nginx since 1.30 speaks HTTP/1.1 and adds no header), but it runs
as a user of its own, and so do other people of the machine.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys

#: of linux/netlink.h, linux/sock_diag.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
#: nlmsghdr: its length, a type, flags, a sequence number, a port; inet_diag_req_v2 up to its addresses
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBxxI")
#: inet_diag_sockid behind the ports and addresses: any interface, any cookie
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_ALL_STATES = 0xFFFFFFFF
#: where an inet_diag_msg has the owner's user id, and the length of it all
_OWNER_AT, _ANSWER_BYTES = _HEADER.size + 64, _HEADER.size + 72
#: the kernel answers at once
TIMEOUT_S = 0.1
ROOT = 0

Address = tuple[str, int]


def is_foreign(far: Address, near: Address) -> bool:
    """Tell whether another user than this process's, or root, holds the far end of a connection.

    False where the system does not tell, and for an end on another machine.
    """
    return owner_of(far, near) not in {None, os.geteuid(), ROOT}


def owner_of(far: Address, near: Address) -> int | None:
    """Return the user id that holds the far end of a connection, None where nothing tells."""
    if sys.platform != "linux":
        return None
    try:
        question = ask_for(far, near)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(TIMEOUT_S)
            kernel.send(question)
            answer = kernel.recv(4096)
    except (OSError, ValueError, struct.error):
        return None
    if len(answer) < _ANSWER_BYTES or _HEADER.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY:
        return None  # an error: there is no such socket here
    owner: int = struct.unpack_from("=I", answer, _OWNER_AT)[0]
    return owner


def ask_for(far: Address, near: Address) -> bytes:
    """Return the question for the one socket whose own end is ``far``. Raises ValueError for no address."""
    ends = [ipaddress.ip_address(host) for host, _ in (far, near)]
    family = socket.AF_INET if ends[0].version == 4 else socket.AF_INET6
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, _ALL_STATES)
    body += struct.pack(">HH", far[1], near[1]) + b"".join(end.packed.ljust(16, b"\0") for end in ends) + _ANY
    return _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + body
