"""``/`` and ``/dashboard/``: a page that comes whole from this server and tells nothing itself."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import PurePath
from typing import Final, NamedTuple

from fastapi import APIRouter, Request, Response

from senoscope_client.errors import NotFound

router = APIRouter(include_in_schema=False)

# Not asked of the system: on Windows a registry that any program may change tells browsers what a script is.
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def _read() -> dict[str, _File]:
    found = {}
    for entry in files("senoscope").joinpath("dashboard").iterdir():
        if (media_type := _TYPES.get(PurePath(entry.name).suffix)) is not None:
            content = entry.read_bytes()
            found[entry.name] = _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


# All of it is smaller than one field of view.
_FILES: Final = _read()


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page."""
    return _answer(request, "index.html")


@router.api_route("/dashboard/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """A script, a style sheet or a picture of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise NotFound(f"the dashboard has no part of that name: {name[:80]!r}")
    # Asked for anew each time, so that an upgraded service never meets yesterday's page.
    headers = {"Cache-Control": "no-cache", "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
