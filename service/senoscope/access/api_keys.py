"""The file of API keys: random keys, stored as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from senoscope_client.models.base import StrictModel
from senoscope_client.security.private_files import create_private, require_private

Scope = Literal["read", "classify", "admin"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class ApiKey(StrictModel):
    """An entry of the file of API keys."""

    name: Name
    # Of the key, hexadecimal. A key has 256 random bits, so that a fast hash is sufficient.
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]  # ``admin`` includes the others
    created: datetime

    def may(self, scope: Scope) -> bool:
        """Return whether the key grants ``scope``."""
        return scope in self.scopes or "admin" in self.scopes


class _KeysFile(StrictModel):
    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


def hash_of(key: str) -> str:
    """Return the SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(keys: tuple[ApiKey, ...], presented: str) -> ApiKey | None:
    """Return the entry of a presented key, or None.

    The duration reveals nothing about the keys: hashes are compared, in constant time, and all of them even
    after a match.
    """
    digest = hash_of(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read the API keys of a file.

    Raises
    ------
    OSError
        If the file cannot be read, is readable for other users, or is not a valid file of API keys.
    """
    try:
        require_private(path)
        return _KeysFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file of API keys {path}; create one with: senoscope keys new --api-keys {path} "
            "--name NAME --scope read"
        ) from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise OSError(f"{path} is not a valid file of API keys: {faults}") from None


def add_key(path: Path, name: str, scopes: tuple[Scope, ...]) -> str:
    """Create a key and add its hash to a file, which is created if missing.

    Returns
    -------
    str
        The key, which is not stored.

    Raises
    ------
    OSError
        If the name is taken, or the file cannot be read or written.
    ValidationError
        If name or scopes are invalid.
    """
    keys = read_keys(path) if path.exists() else ()
    if any(key.name == name for key in keys):
        raise FileExistsError(f"{path} already has a key named {name!r}: revoke it, or choose another name")
    # The prefix lets scanners find leaked keys; the alphabet is allowed in a WebSocket subprotocol.
    text = f"senoscope_{secrets.token_urlsafe(32)}"
    created = ApiKey(name=name, sha256=hash_of(text), scopes=scopes, created=datetime.now(UTC))
    _write(path, (*keys, created))
    return text


def revoke_key(path: Path, name: str) -> None:
    """Remove a key from a file; a running service reloads it.

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
    # Replaced atomically: a concurrent reader gets either the old keys or the new ones.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    create_private(temporary, _KeysFile(keys=keys).model_dump_json(indent=2) + "\n")
    temporary.replace(path)
