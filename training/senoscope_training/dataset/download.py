"""Download of the paper's record from Zenodo: verified by MD5, and resumed after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import pooch
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from senoscope_training.dataset.model import DataSetError

RECORD = 7946845
_API = f"https://zenodo.org/api/records/{RECORD}"
_CHUNK = 1024 * 1024

pooch.get_logger().setLevel("ERROR")  # the progress of each file is reported by `Step`

Step = Callable[[str, int, int], None]
"""Called with the name of a file, the bytes received so far, and the bytes in total."""


class _Links(BaseModel):
    self_: Annotated[str, Field(alias="self", pattern=r"^https://zenodo\.org/")]


class _RemoteFile(BaseModel):
    """A file of the record, which may not choose other servers, or paths outside of the folder."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._()-]{0,200}$")]
    size: NonNegativeInt
    checksum: Annotated[str, Field(pattern="^md5:[0-9a-f]{32}$")]
    links: _Links


class _Record(BaseModel):
    files: Annotated[tuple[_RemoteFile, ...], Field(min_length=1)]


def download_record(folder: Path, step: Step, client: httpx.Client | None = None) -> list[Path]:
    """Download all files of the record that the folder does not already contain.

    An incomplete file is kept as ``<name>.part``, and the next call resumes it.

    Raises
    ------
    DataSetError
        If Zenodo cannot be reached or sends an invalid response, or if a file differs from its MD5 in the
        record.
    """
    advice = (
        f"What has arrived is kept in {folder}; run the command again, or download "
        f"https://zenodo.org/records/{RECORD} with a browser and pass the files"
    )
    with _zenodo(client, advice) as opened:
        files = _files(opened)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return [_fetch(opened, file, folder, step) for file in files]
        except OSError as error:
            raise DataSetError(f"{folder} cannot be written ({error.strerror})") from error


def published_md5s(client: httpx.Client | None = None) -> frozenset[str]:
    """Request from Zenodo the MD5 sums of the record's files.

    Raises
    ------
    DataSetError
        If Zenodo cannot be reached or sends an invalid response.
    """
    advice = "The files cannot be compared with the published ones; if you trust them, pass --trust"
    with _zenodo(client, advice) as opened:
        return frozenset(file.checksum.removeprefix("md5:") for file in _files(opened))


@contextmanager
def _zenodo(client: httpx.Client | None, advice: str) -> Iterator[httpx.Client]:
    """Open a client whose errors are raised as `DataSetError`, with advice if Zenodo cannot be reached."""
    with client or httpx.Client(timeout=30, follow_redirects=True) as opened:
        try:
            yield opened
        except httpx.HTTPStatusError as error:
            raise DataSetError(
                f"{error.request.url} responds with {error.response.status_code} "
                f"{error.response.reason_phrase}; try again later"
            ) from error
        except httpx.HTTPError as error:
            raise DataSetError(
                f"Zenodo cannot be reached ({str(error) or type(error).__name__}). {advice}"
            ) from error


def _files(client: httpx.Client) -> tuple[_RemoteFile, ...]:
    response = client.get(_API)
    response.raise_for_status()
    try:
        return _Record.model_validate_json(response.content).files
    except ValidationError as error:
        raise DataSetError(
            f"the response from {_API} is not a Zenodo record; check whether a proxy changes it"
        ) from error


def _fetch(client: httpx.Client, file: _RemoteFile, folder: Path, step: Step) -> Path:
    try:
        pooch.retrieve(
            file.links.self_,
            file.checksum,
            fname=file.key,
            path=folder,
            downloader=lambda _, target, __: _receive(client, file, folder, Path(target), step),
        )
    except ValueError as error:
        raise DataSetError(
            f"{file.key} was damaged in transfer: its checksum is not {file.checksum}. The file was deleted; "
            "run the command again"
        ) from error
    step(file.key, file.size, file.size)
    return folder / file.key


def _receive(client: httpx.Client, file: _RemoteFile, folder: Path, target: Path, step: Step) -> None:
    """Download to ``<name>.part`` until it is complete, because pooch deletes ``target`` after an error."""
    part = folder / f"{file.key}.part"
    received = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={received}-"} if 0 < received < file.size else {}
    with client.stream("GET", file.links.self_, headers=headers) as response:
        response.raise_for_status()
        # A server that does not support ranges sends the whole file.
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        with part.open("ab" if resumed else "wb") as output:
            for chunk in response.iter_bytes(_CHUNK):
                if output.tell() + len(chunk) > file.size:
                    raise DataSetError(
                        f"{file.key} is longer than the record declares; run the command again"
                    )
                output.write(chunk)
                step(file.key, output.tell(), file.size)
    part.replace(target)
