"""Fetching the paper's record from Zenodo: checked by MD5, resumed where it was cut off."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from senoscope_training.dataset.model import DataSetError

RECORD = 7946845
_API = f"https://zenodo.org/api/records/{RECORD}"
_HOST = "zenodo.org"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()-]{0,200}")
_CHUNK = 1024 * 1024

Step = Callable[[str, int, int], None]
"""Told the file, the bytes that are there, and the bytes that it has."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of the record."""

    name: str
    size: int
    md5: str
    url: str


def download_record(folder: Path, step: Step, client: httpx.Client | None = None) -> list[Path]:
    """Fetch all files of the record; those that are there and complete are kept.

    Parameters
    ----------
    folder : Path
        Made if need be. A file that was cut off stays as ``<name>.part`` and is resumed the next time.
    step : callable
        Told of progress.
    client : httpx.Client, optional

    Raises
    ------
    DataSetError
        If Zenodo cannot be reached, answers nonsense, or a file is not what the record says.
    """
    with client or httpx.Client(timeout=30, follow_redirects=True) as opened:
        try:
            files = _files(opened)
            folder.mkdir(parents=True, exist_ok=True)
            return [_fetch(opened, file, folder, step) for file in files]
        except httpx.HTTPStatusError as error:
            raise DataSetError(
                f"{error.request.url} answers {error.response.status_code} "
                f"{error.response.reason_phrase}; try again later"
            ) from error
        except httpx.HTTPError as error:
            raise DataSetError(
                f"Zenodo cannot be reached ({str(error) or type(error).__name__}). What has arrived is kept "
                f"in {folder}; run the command again, or download https://zenodo.org/records/{RECORD} with a "
                "browser and name the files"
            ) from error
        except OSError as error:
            raise DataSetError(f"{folder} cannot be written ({error.strerror})") from error


def _files(client: httpx.Client) -> list[RemoteFile]:
    answer = client.get(_API)
    answer.raise_for_status()
    try:
        files = [_remote(file) for file in answer.json()["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataSetError(f"{_API} does not answer as Zenodo does; is there a proxy in between?") from error
    if not files:
        raise DataSetError(f"the record {_API} has no files")
    return files


def _remote(file: Any) -> RemoteFile:
    kind, _, md5 = str(file["checksum"]).partition(":")
    url = httpx.URL(file["links"]["self"])
    name, size = str(file["key"]), int(file["size"])
    if kind != "md5" or not re.fullmatch(r"[0-9a-f]{32}", md5) or size < 0:
        raise ValueError("no MD5")
    # The record is not trusted to say where files come from and go to.
    if not _NAME.fullmatch(name) or url.scheme != "https" or url.host != _HOST:
        raise ValueError("a name or an address that Zenodo does not give")
    return RemoteFile(name, size, md5, str(url))


def _fetch(client: httpx.Client, file: RemoteFile, folder: Path, step: Step) -> Path:
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file() and path.stat().st_size == file.size and _md5(path) == file.md5:
        step(file.name, file.size, file.size)
        return path
    there = part.stat().st_size if part.is_file() else 0
    if there > file.size:
        there = 0
    if there < file.size or not part.is_file():
        _receive(client, file, part, there, step)
    if part.stat().st_size != file.size or _md5(part) != file.md5:
        part.unlink()
        raise DataSetError(
            f"{file.name} arrived damaged: its MD5 is not {file.md5}. It was deleted; run the command again"
        )
    part.replace(path)
    return path


def _receive(client: httpx.Client, file: RemoteFile, part: Path, there: int, step: Step) -> None:
    headers = {"Range": f"bytes={there}-"} if there else {}
    with client.stream("GET", file.url, headers=headers) as answer:
        answer.raise_for_status()
        # A server that does not resume sends the whole file.
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        there = there if resumed else 0
        with part.open("ab" if resumed else "wb") as target:
            for chunk in answer.iter_bytes(_CHUNK):
                there += len(chunk)
                if there > file.size:
                    raise DataSetError(f"{file.name} is longer than its record says; run the command again")
                target.write(chunk)
                step(file.name, there, file.size)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
