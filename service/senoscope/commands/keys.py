"""``senoscope keys``: manage API keys, and create CURVE key pairs for ZeroMQ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Manage API keys, and create CURVE key pairs for ZeroMQ."
)

KeysFile = Annotated[
    Path, typer.Option("--api-keys", envvar="SENOSCOPE_API_KEYS", help="File of API keys, as for `serve`.")
]


@keys.command("new")
def new(
    name: Annotated[str, typer.Option(help="Name of the key, for example of its user or program.")],
    scope: Annotated[list[str], typer.Option(help="read, classify or admin; may be repeated.")],
    api_keys: KeysFile,
) -> None:
    """Create an API key and print it once; only its hash is stored."""
    from pydantic import TypeAdapter, ValidationError

    from senoscope.access.api_keys import Name, Scope, add_key
    from senoscope_client.errors import InvalidRequest

    scope_names: TypeAdapter[tuple[Scope, ...]] = TypeAdapter(tuple[Scope, ...])
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise InvalidRequest(
            f"{name!r} is not a valid key name: use up to 64 letters, digits, dots, dashes, underscores and @"
        ) from None
    try:
        scopes = scope_names.validate_python(tuple(dict.fromkeys(scope)))
    except ValidationError:
        raise InvalidRequest(f"--scope {', '.join(scope)}: use read, classify or admin") from None
    print(add_key(api_keys, name, scopes), flush=True)
    print(f"Only the hash is stored in {api_keys}; the key is not shown again.", file=sys.stderr)


@keys.command("list")
def list_keys(api_keys: KeysFile) -> None:
    """List name, scopes and date of each API key."""
    from senoscope.access.api_keys import read_keys

    for key in read_keys(api_keys):
        print(f"{key.name}\t{','.join(key.scopes)}\t{key.created:%Y-%m-%d %H:%M:%S}Z")


@keys.command("revoke")
def revoke(name: str, api_keys: KeysFile) -> None:
    """Revoke an API key; a running service refuses it from the next request on."""
    from senoscope.access.api_keys import revoke_key

    revoke_key(api_keys, name)


@keys.command("curve")
def curve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the two key files.")],
    name: Annotated[str, typer.Option(help="Name of the files: NAME.key and NAME.key_secret.")],
) -> None:
    """Create a CURVE key pair for encrypted ZeroMQ."""
    from senoscope_client.errors import InvalidRequest
    from senoscope_client.zeromq.curve_keys import create_keypair

    try:
        public, secret = create_keypair(directory, name)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    print(f"{public}  public key: copy it to the other machine")
    print(f"{secret}  secret key: keep it on this machine")
