"""Checks for addresses that only this machine can reach."""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Return whether a server on ``host``, an address or a name, can be reached only from this machine.

    A name counts as loopback only if all its addresses do; a name that cannot be resolved, such as the name
    of a network interface, does not.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    if not host or host == "*":  # every address
        return False
    if host.lower() == "localhost":  # by RFC 6761, whether or not it can be resolved
        return True
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in entries)


def is_local_endpoint(endpoint: str) -> bool:
    """Return whether a ZeroMQ socket that is bound to ``endpoint`` can be reached only from this machine."""
    transport, _, address = endpoint.partition("://")
    if transport in {"ipc", "inproc"}:
        return True
    return is_loopback(address.rpartition(":")[0].strip("[]"))
