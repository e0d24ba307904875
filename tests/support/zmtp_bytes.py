"""Messages of ZMTP 3.0 as bytes, to simulate peers that behave differently from ZeroMQ."""

from __future__ import annotations

import struct


def greeting(mechanism: bytes = b"NULL") -> bytes:
    """Return the greeting, which each side sends first."""
    return b"\xff" + bytes(8) + b"\x7f\3\0" + mechanism.ljust(20, b"\0") + bytes(32)


def ready(socket_type: bytes) -> bytes:
    """Return the command that completes the handshake of mechanism NULL."""
    return command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type)


def command(name: bytes, body: bytes) -> bytes:
    """Return a command."""
    content = bytes([len(name)]) + name + body
    return bytes([4, len(content)]) + content


def part(content: bytes, *, more: bool) -> bytes:
    """Return a part of a message."""
    return bytes([2 | more]) + struct.pack(">Q", len(content)) + content


def endless(topic: bytes, size: int) -> bytes:
    """Return the beginning of a message with ``size`` bytes in parts of 64 KiB."""
    return part(topic, more=True) + part(bytes(65536), more=True) * (size // 65536)
