"""CURVE keys of ZeroMQ sockets: creating them, reading their files, and using them on a connecting socket.

The key files are those of ``zmq.auth``: ``NAME.key`` holds the public key and may be copied to other
machines; ``NAME.key_secret`` holds both keys and must stay on the machine where it was created.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from senoscope_client.security.private_files import create_private, require_private

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_LENGTH = 40  # 32 bytes in Z85

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, in Z85.

    Attributes
    ----------
    public, secret : bytes
        40 characters each.
    """

    public: bytes
    secret: bytes = field(repr=False)


def create_keypair(directory: Path, name: str) -> tuple[Path, Path]:
    """Create a key pair and write its two files.

    Parameters
    ----------
    directory : Path
        Created if it does not exist, with access for its owner only.
    name : str
        Letters, digits, dots, dashes and underscores.

    Returns
    -------
    tuple of Path
        The public and the secret file.

    Raises
    ------
    OSError
        If a file exists already, or cannot be written.
    ValueError
        If the name is not allowed.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a key: use up to 64 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    public, secret = (text.decode() for text in zmq.curve_keypair())
    public_file, secret_file = directory / f"{name}.key", directory / f"{name}.key_secret"
    if public_file.exists():
        raise FileExistsError(f"{public_file} exists already; choose another name")
    try:
        create_private(
            secret_file, f'metadata\ncurve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'
        )
    except FileExistsError:
        raise FileExistsError(f"{secret_file} exists already; choose another name") from None
    public_file.write_text(f'metadata\ncurve\n    public-key = "{public}"\n', encoding="utf-8")
    return public_file, secret_file


def load_keypair(path: StrPath) -> KeyPair:
    """Read the key pair in a secret file.

    Raises
    ------
    OSError
        If the file cannot be read, or if users other than its owner can read it.
    ValueError
        If it holds no key pair.
    """
    path = Path(path)
    require_private(path)
    public, secret = load_certificate(path)
    if secret is None:
        raise ValueError(f"{path} holds no secret key; the name of a secret file ends in .key_secret")
    return KeyPair(_validate_key(public, path), _validate_key(secret, path))


def load_public_key(key: str) -> bytes:
    """Return a public key that is given as its 40 characters, or as the path of its file.

    Raises
    ------
    OSError, ValueError
        If it is neither.
    """
    if len(key) == _KEY_LENGTH and not Path(key).exists():
        return _validate_key(key.encode(), "the given text")
    return _validate_key(load_certificate(key)[0], key)


def load_public_keys(directory: StrPath) -> frozenset[bytes]:
    """Read the public keys in the ``*.key`` files of a folder.

    Raises
    ------
    OSError, ValueError
        If there is no such folder, or a file in it holds no key.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise OSError(f"{directory} is not a folder of public keys (*.key)")
    return frozenset(_validate_key(load_certificate(path)[0], path) for path in directory.glob("*.key"))


@dataclass(frozen=True)
class CurveClient:
    """The keys with which a socket connects to a CURVE server.

    Attributes
    ----------
    server : bytes
        The server's public key.
    own : KeyPair
    """

    server: bytes
    own: KeyPair

    @classmethod
    def load(cls, server_key: str, keypair: StrPath | None = None) -> CurveClient:
        """Read the keys.

        Parameters
        ----------
        server_key : str
            The server's public key, or the path of its file.
        keypair : path, optional
            The client's secret file. Without one a new key pair is created, which a server with a list of
            allowed keys refuses.

        Raises
        ------
        OSError, ValueError
            If a key cannot be read.
        """
        own = KeyPair(*zmq.curve_keypair()) if keypair is None else load_keypair(keypair)
        return cls(load_public_key(server_key), own)

    def secure(self, socket: zmq.Socket[Any]) -> None:
        """Set the keys of a socket, which then uses CURVE; call it before the socket connects."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.own.secret)


def _validate_key(key: bytes, source: StrPath) -> bytes:
    try:
        if len(key) == _KEY_LENGTH and len(z85.decode(key)) == 32:
            return key
    except (ValueError, KeyError, OverflowError, zmq.ZMQError):
        pass
    raise ValueError(f"{os.fspath(source)} holds no CURVE key of {_KEY_LENGTH} characters")
