"""Which addresses only this machine can reach."""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether nobody beyond this machine reaches a listener on ``host``, an address or a name.

    A name counts only if all its addresses do; what cannot be told, an interface's name for example, does
    not.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    if not host or host == "*":  # every address
        return False
    if host.lower() == "localhost":  # by RFC 6761, whether or not anything resolves it here
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def is_local_endpoint(endpoint: str) -> bool:
    """Whether nobody beyond this machine reaches a ZeroMQ socket bound there."""
    transport, _, address = endpoint.partition("://")
    if transport in {"ipc", "inproc"}:
        return True
    return is_loopback(address.rpartition(":")[0].strip("[]"))
