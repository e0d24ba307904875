"""Warnings about a posted file may quote any text of it, and reach the client in any form of answer."""

from __future__ import annotations

import httpx
import pytest

from senoscope.api.routes.classify import _warning_headers
from support import miniature as mini
from support.classify_requests import NAMES
from support.image_bytes import tiff
from support.servers import Server

TEXTS = ["-999", "a\r\nEvil: 1", "a\nEvil: 1", "a\tb", "a\x01b", "a\x7fb", "ä", "x" * 5000, "\r\n\r\n", ""]


@pytest.mark.parametrize("accept", ["text/csv", "application/json"])
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("where", ["GDAL_NODATA", "channel", "PageName"])
def test_any_text_in_a_file_can_be_quoted(server: Server, where: str, text: str, accept: str) -> None:
    encoded = text.encode() + b"\0"
    tags = {"GDAL_NODATA": 42113, "PageName": 285}
    extra = [(tags[where], 2, len(encoded), encoded, False)] if where in tags else []
    names = [*NAMES[:2], text] if where == "channel" else list(NAMES)
    options = {"metadata": {"axes": "CYX", "Channel": {"Name": names}}} if where != "PageName" else {}
    body = tiff(mini.bright(), extratags=extra, **({"metadata": None} | options))
    answer = httpx.post(f"{server.url}/v1/classify", content=body, headers={"Accept": accept}, timeout=30)
    assert "evil" not in answer.headers
    if where == "channel":  # two of three names are those of channels
        assert (answer.status_code, answer.json()["code"]) == (422, "ambiguous_axes")
        return
    assert answer.status_code == 200, answer.text
    reported = (
        answer.headers.get("Senoscope-Warnings", "") if accept == "text/csv" else answer.json()["warnings"]
    )
    assert reported or where == "PageName"


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_headers_hold_printable_ascii_only(text: str) -> None:
    (value,) = _warning_headers((f"it says {text}",)).values()
    assert value.isascii()
    assert value.isprintable()
