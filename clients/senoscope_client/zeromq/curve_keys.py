"""CURVE keys of ZeroMQ sockets: made, kept in files, and put on the socket that connects.

The key files are those of ``zmq.auth``: ``NAME.key`` holds the public key and may go anywhere;
``NAME.key_secret`` holds both and stays where it was made.
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
    """Make a key pair and write both its files.

    Parameters
    ----------
    directory : Path
        Made, for its owner alone, if it is not there.
    name : str
        Letters, digits, dots, dashes and underscores.

    Returns
    -------
    tuple of Path
        The public and the secret file.

    Raises
    ------
    OSError
        If a file is there already, or cannot be written.
    ValueError
        If the name is not allowed.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a key: take up to 64 letters, digits, dots and dashes")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    public, secret = (text.decode() for text in zmq.curve_keypair())
    public_file, secret_file = directory / f"{name}.key", directory / f"{name}.key_secret"
    if public_file.exists():
        raise FileExistsError(f"{public_file} is there already; take another name")
    try:
        create_private(
            secret_file, f'metadata\ncurve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'
        )
    except FileExistsError:
        raise FileExistsError(f"{secret_file} is there already; take another name") from None
    public_file.write_text(f'metadata\ncurve\n    public-key = "{public}"\n', encoding="utf-8")
    return public_file, secret_file


def load_keypair(path: StrPath) -> KeyPair:
    """The key pair in a secret file.

    Raises
    ------
    OSError
        If it cannot be read, or others than its owner can read it.
    ValueError
        If it holds no key pair.
    """
    path = Path(path)
    require_private(path)
    public, secret = load_certificate(path)
    if secret is None:
        raise ValueError(f"{path} holds no secret key; its secret file ends in .key_secret")
    return KeyPair(_checked(public, path), _checked(secret, path))


def load_public_key(key: str) -> bytes:
    """A public key given as itself, 40 characters, or as its file.

    Raises
    ------
    OSError, ValueError
        If it is neither.
    """
    if len(key) == _KEY_LENGTH and not Path(key).exists():
        return _checked(key.encode(), "the text given")
    return _checked(load_certificate(key)[0], key)


def load_public_keys(directory: StrPath) -> frozenset[bytes]:
    """The public keys in the ``*.key`` files of a folder.

    Raises
    ------
    OSError, ValueError
        If there is no such folder, or a file in it holds no key.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise OSError(f"{directory} is no folder of public keys (*.key)")
    return frozenset(_checked(load_certificate(path)[0], path) for path in directory.glob("*.key"))


@dataclass(frozen=True)
class CurveClient:
    """What a connecting socket needs to speak CURVE.

    Attributes
    ----------
    server : bytes
        The server's public key.
    mine : KeyPair
    """

    server: bytes
    mine: KeyPair

    @classmethod
    def load(cls, server_key: str, keypair: StrPath | None = None) -> CurveClient:
        """Read the keys.

        Parameters
        ----------
        server_key : str
            The server's public key, or its file.
        keypair : path, optional
            The client's secret file. Without one a new key is made, which a server with an allow-list
            refuses.

        Raises
        ------
        OSError, ValueError
            If a key cannot be read.
        """
        mine = KeyPair(*zmq.curve_keypair()) if keypair is None else load_keypair(keypair)
        return cls(load_public_key(server_key), mine)

    def secure(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket speak CURVE; before it connects."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.mine.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.mine.secret)


def _checked(key: bytes, where: StrPath) -> bytes:
    try:
        if len(key) == _KEY_LENGTH and len(z85.decode(key)) == 32:
            return key
    except (ValueError, KeyError, OverflowError, zmq.ZMQError):
        pass
    raise ValueError(f"{os.fspath(where)} holds no CURVE key of {_KEY_LENGTH} characters")
