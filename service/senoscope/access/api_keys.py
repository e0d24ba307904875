"""The file of API keys: made at random, kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from senoscope_client.security.private_files import create_private, require_private

Scope = Literal["read", "classify", "admin"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class ApiKey(BaseModel):
    """What is known of a key.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the key, hexadecimal. A key has 256 random bits, so that a fast hash is enough.
    scopes : tuple of {"read", "classify", "admin"}
        ``admin`` includes the others.
    created : datetime
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    created: datetime

    def may(self, scope: Scope) -> bool:
        """Whether the key opens what needs ``scope``."""
        return scope in self.scopes or "admin" in self.scopes


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


def hash_of(key: str) -> str:
    """The SHA-256 that stands for a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(keys: tuple[ApiKey, ...], presented: str) -> ApiKey | None:
    """The key that was presented, or None.

    How long it takes tells nothing: what is compared are hashes, each comparison takes the same time
    whatever differs, and every key is compared whether or not one before it matched.
    """
    digest = hash_of(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file.

    Raises
    ------
    OSError
        If it cannot be read, others can read it, or it is no keys file.
    """
    try:
        require_private(path)
        return _KeysFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no keys file {path}; make one: senoscope keys new --api-keys {path} --name NAME "
            "--scope read"
        ) from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise OSError(f"{path} is no keys file: {faults}") from None


def add_key(path: Path, name: str, scopes: tuple[Scope, ...]) -> str:
    """Make a key and put its hash into a file, which is made if it is not there.

    Returns
    -------
    str
        The key, which is kept nowhere.

    Raises
    ------
    OSError
        If the name is taken, or the file cannot be read or written.
    ValidationError
        If name or scopes are not allowed.
    """
    keys = read_keys(path) if path.exists() else ()
    if any(key.name == name for key in keys):
        raise FileExistsError(f"{path} has a key named {name!r} already: revoke it, or take another name")
    # The prefix is for those who look for leaked keys; the alphabet fits a WebSocket subprotocol.
    text = f"senoscope_{secrets.token_urlsafe(32)}"
    made = ApiKey(name=name, sha256=hash_of(text), scopes=scopes, created=datetime.now(UTC))
    _write(path, (*keys, made))
    return text


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of a file; a running service notices.

    Raises
    ------
    OSError
        If there is no key of that name, or the file cannot be read or written.
    """
    keys = read_keys(path)
    left = tuple(key for key in keys if key.name != name)
    if len(left) == len(keys):
        raise FileNotFoundError(f"{path} has no key named {name!r}")
    _write(path, left)


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Put in place at once: whoever reads meanwhile sees the old keys or the new ones.
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    create_private(fresh, _KeysFile(keys=keys).model_dump_json(indent=2) + "\n")
    fresh.replace(path)
