"""``/`` and ``/dashboard/``: the dashboard's files, which are all part of this package and hold no data."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import PurePath
from typing import Final, NamedTuple

import cv2
import numpy as np
from fastapi import APIRouter, Request, Response

from senoscope_client.errors import NotFound

router = APIRouter(include_in_schema=False)

# Not from the `mimetypes` module: on Windows it reads the registry, which any program may change.
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


def _read_files() -> dict[str, _File]:
    contents = {
        entry.name: entry.read_bytes() for entry in files("senoscope").joinpath("dashboard").iterdir()
    }
    contents["opencv_colormaps.js"] = _colour_maps()
    return {
        name: _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        for name, content in contents.items()
        if (media_type := _TYPES.get(PurePath(name).suffix)) is not None
    }


def _colour_maps() -> bytes:
    """Return a script with the colour maps of the service's pictures, each as 256 times [r, g, b]."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    maps = {
        name: cv2.applyColorMap(levels, index)[:, 0, ::-1].ravel().tolist()
        for name, index in {"viridis": cv2.COLORMAP_VIRIDIS, "inferno": cv2.COLORMAP_INFERNO}.items()
    }
    return f"export const maps = {json.dumps(maps)};\n".encode()


# All files together are smaller than one field of view.
_FILES: Final = _read_files()


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """Return the dashboard's page."""
    return _answer(request, "index.html")


@router.api_route("/dashboard/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """Return a script, a style sheet or a picture of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise NotFound(f"the dashboard has no file {name[:80]!r}")
    # Validated by the browser each time, so that it never shows the page of an earlier release.
    headers = {"Cache-Control": "no-cache", "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
