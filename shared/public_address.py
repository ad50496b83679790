"""Which addresses are the public internet's."""

from __future__ import annotations

import ipaddress

NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: where the public addresses of IPv6 are
ROUTED = ipaddress.ip_network("2000::/3")
#: what Python 3.11 takes for public and the registries of special addresses do not
NOT_ROUTED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address is one of the public internet, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in ROUTED or address.sixtofour:
            return False  # among the others are ways to wrap an IPv4 address in; nothing public is there
    return address.is_global and not address.is_multicast and not any(address in network for network in NOT_ROUTED)
