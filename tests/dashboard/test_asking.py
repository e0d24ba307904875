"""Actions on the page: posting stacks, changing the model and its range, login; and the page's files."""

from __future__ import annotations

import base64
import csv
import io
import uuid
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
from playwright.sync_api import Page

from senoscope.access.api_keys import add_key, revoke_key
from support import miniature as mini
from support.microscopes import Scan
from support.servers import Server, start_server, stop_server

pytestmark = pytest.mark.system("chromium")


def live_clients(server: Server, headers: dict[str, str]) -> int:
    return httpx.get(f"{server.url}/v1/stream", headers=headers).json()["live_clients"]["connected"]


def tiff(tmp_path: Path, levels: tuple[int, ...], **options: object) -> Path:
    path = tmp_path / "stack.tif"
    stack = np.stack([mini.bright(level=level) for level in levels])
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"}, **options)
    return path


def bare_pages(path: Path) -> Path:
    """Six pages without a description: two fields of view, bright and dark, or three of two channels each."""
    with tifffile.TiffWriter(path) as writer:
        for page in np.concatenate([mini.bright(), mini.dark()]):
            writer.write(page, metadata=None)
    return path


def test_a_stack_is_dropped_on_the_page(server: Server, seat, tmp_path: Path) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    path = tiff(tmp_path, (900, 60, 900, 400))
    # The same events as for a drop in the browser, with the file.
    transfer = at.page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
            return transfer;
        }""",
        [path.name, base64.b64encode(path.read_bytes()).decode()],
    )
    at.page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    assert at.page.get_by_text("Drop a TIFF or NPY stack").is_visible()
    at.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    at.until(lambda: at.seen() == 4)
    assert at.page.locator("#drop").is_hidden()
    at.until(lambda: "stack.tif · FOV 0" in at.text("#where"))
    assert at.text("#where").endswith(" · fp32")
    assert at.text("#label") == "senescent"
    at.page.get_by_role("button", name="Next field of view").click()
    at.until(lambda: "stack.tif · FOV 1" in at.text("#where"))
    assert at.text("#label") == "control"
    at.shoot("stack")
    with at.page.expect_download() as download:
        at.page.locator("#live").get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["file"] for row in rows] == ["stack.tif"] * 4
    assert sorted(row["frame"] for row in rows) == ["0", "1", "2", "3"]


def test_the_export_of_a_stack_excludes_stacks_posted_at_the_same_time(scripts: Page) -> None:
    mine, other = (str(uuid.uuid4()) for _ in range(2))
    kept = scripts.evaluate(
        """async ([csv, mine]) => {
            const { ofStack } = await import("./history.js");
            return ofStack(csv, { known: new Map([[mine, {}]]) });
        }""",
        [f"id,file\n{other},a.tif\n{mine},stack.tif\n{other},a.tif\n", mine],
    )
    assert kept == f"id,file\n{mine},stack.tif\n"


def test_a_classified_stack_does_not_leave_the_view_that_the_user_went_to(
    server: Server, seat, tmp_path: Path
) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    at.page.locator("#file").set_input_files(tiff(tmp_path, (900, 60) * 20))
    at.page.get_by_role("link", name="Model and range").click()
    at.until(lambda: "is classified: 40 fields of view." in at.text("#toasts"))
    assert at.page.locator("#model").is_visible()
    at.page.get_by_role("button", name="Show", exact=True).click()
    at.until(lambda: at.page.locator("#live").is_visible() and at.seen() == 40)


def test_assumptions_about_a_stack_are_shown(server: Server, seat, tmp_path: Path) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    path = tmp_path / "inverted.tif"
    tifffile.imwrite(path, mini.bright(), photometric="miniswhite", metadata={"axes": "CYX"})
    at.page.locator("#file").set_input_files(path)
    at.until(lambda: "inverted.tif: the file declares that 0 is white" in at.text("#toasts"))


def test_a_stack_that_is_dropped_on_another_view_changes_nothing_there(
    server: Server, seat, new_scan, tmp_path: Path
) -> None:
    with new_scan("watched") as scan:
        scan.go((900, 60, 400))
    at = seat(f"{server.url}/#history")
    rows = at.page.locator("#rows tr")
    at.until(lambda: rows.count() == 3)
    at.page.locator("#file").set_input_files(tiff(tmp_path, (900, 60)))
    at.until(lambda: "is classified: 2 fields of view." in at.text("#toasts"))
    assert at.page.locator("#history").is_visible()
    assert rows.count() == 3, "the list still shows the series"
    assert "watched" in at.page.locator("#series option:checked").inner_text()
    at.page.get_by_role("button", name="Show", exact=True).click()
    at.until(lambda: at.page.locator("#live").is_visible() and at.seen() == 2)


def test_the_dialog_for_the_layout_of_a_stack_opens_on_request(server: Server, seat, tmp_path: Path) -> None:
    at = seat(f"{server.url}/#model")
    at.until(lambda: at.text("#connection").endswith("Connected"))
    names = ("one.tif", "two.tif")
    for name in names:
        bare_pages(tmp_path / name)
    at.page.locator("#file").set_input_files([tmp_path / name for name in names])
    buttons = at.page.get_by_role("button", name="Choose the layout…")
    at.until(lambda: buttons.count() == 2)
    assert at.page.locator("#axes").is_hidden()
    assert at.page.locator("#model").is_visible()
    buttons.first.click()
    assert "How is one.tif laid out?" in at.text("#axes")
    at.page.get_by_role("button", name="Cancel").click()
    buttons.first.click()
    at.page.get_by_role("button", name="Channel by channel").click()
    at.until(lambda: "two.tif is classified: 2 fields of view." in at.text("#toasts"))


@pytest.mark.parametrize(
    ("choice", "labels"),
    [("Field of view by field of view", ["senescent", "control"]), ("Channel by channel", None)],
)
def test_the_layout_of_a_stack_is_chosen_by_description(
    server: Server, seat, tmp_path: Path, choice: str, labels
) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    at.page.locator("#file").set_input_files(bare_pages(tmp_path / "bare.tif"))
    at.until(lambda: at.page.locator("#axes").is_visible())
    assert "FOV 1: SRS, TPEF, Transmission; then FOV 2" in at.text("#axesbyfov")
    assert at.text("#axesbychannel").startswith("SRS of FOV 1, FOV 2")
    at.page.get_by_role("button", name=choice).click()
    at.until(lambda: at.seen() == 2)
    at.page.get_by_role("link", name="History").click()
    found = at.page.locator("#rows tr td:nth-child(4)").all_inner_texts()[::-1]
    # Taken channel by channel, both fields of view mix bright and dark images.
    assert len(found) == 2
    assert labels is None or found == labels
    probabilities = at.page.locator("#rows tr td:nth-child(5)").all_inner_texts()
    assert labels is not None or all(0.0 < float(p) < 1.0 for p in probabilities)
    assert at.page.locator("#rows tr td:nth-child(3)").all_inner_texts() == ["bare.tif"] * 2


def test_the_reason_why_a_stack_is_refused_is_shown(server: Server, seat, tmp_path: Path) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    picture = tmp_path / "notes.tif"
    picture.write_text("no picture")
    at.page.locator("#file").set_input_files(picture)
    at.until(lambda: "notes.tif was not classified" in at.text("#toasts"))
    # Six bare pages may be two fields of view or one of six channels: the page opens the dialog.
    at.page.locator("#file").set_input_files(bare_pages(tmp_path / "bare.tif"))
    at.until(lambda: at.page.locator("#axes").is_visible())
    assert "axes" in at.text("#axeswhy")
    at.page.get_by_text("Another layout").click()
    at.page.get_by_label("Axes").fill("PCYX")
    at.page.get_by_role("button", name="Try again").click()
    at.until(lambda: at.seen() == 2)


def test_model_and_range_are_shown_and_changed(server: Server, seat, new_scan, tmp_path: Path) -> None:
    at = seat(f"{server.url}/#model")
    at.until(lambda: "miniature 1" in at.text("#ensemble"))
    at.until(lambda: "The model's range" in at.text("#rangesource"))
    assert at.page.locator("#networks tr").count() == 7
    with new_scan() as scan:
        at.page.get_by_role("spinbutton", name="Fields of view").fill("5")
        at.page.get_by_role("button", name="Calibrate from the stream").click()
        at.until(lambda: "0 of 5 fields of view collected" in at.text("#calibration"))
        scan.go((300, 310, 320))
        at.until(lambda: "3 of 5 fields of view collected" in at.text("#calibration"))
        scan.go((330, 340))
        at.until(lambda: "Calibrated on 5 fields of view" in at.text("#calibration"))
    assert "Calibrated for this session on 5 fields of view" in at.text("#rangesource")
    normalization = httpx.get(f"{server.url}/v1/normalization").json()
    assert normalization["source"] == "session"
    assert f"{normalization['high'][0]:.5g}" in at.text("#ranges")
    at.shoot("model")
    at.page.get_by_role("button", name="Back to the model's range").click()
    at.until(lambda: "The model's range" in at.text("#rangesource"))
    at.page.locator("#calibrationfile").set_input_files(tiff(tmp_path, (300, 900)))
    at.until(lambda: "a posted stack" in at.text("#rangesource"))
    at.page.get_by_label("Change to").select_option("other")
    at.page.get_by_role("button", name="Load and verify").click()
    at.until(lambda: "other 1" in at.text("#ensemble"))
    # The answer may follow the event.
    at.until(lambda: at.text("#changed") == "other is in use, in fp32.")
    at.page.get_by_label("Precision").select_option("fp16")
    at.page.get_by_role("button", name="Load and verify").click()
    at.until(lambda: at.text("#changed") == "other is in use, in fp32: fp16 was rejected.")
    at.until(lambda: "whole ensemble: this ensemble has no fp16 files" in at.text("#ensemble"))
    at.page.get_by_label("Precision").select_option("")
    at.page.get_by_label("Change to").select_option("miniature")
    at.page.get_by_role("button", name="Load and verify").click()
    at.until(lambda: "miniature 1" in at.text("#ensemble"))
    at.page.get_by_role("button", name="Back to the model's range").click()
    at.until(lambda: "The model's range" in at.text("#rangesource"))


def test_the_reason_of_a_refusal_is_shown_next_to_the_form(server: Server, seat, tmp_path: Path) -> None:
    at = seat(f"{server.url}/#model")
    at.until(lambda: "miniature 1" in at.text("#ensemble"))
    at.page.locator("#calibrationfile").set_input_files(tiff(tmp_path, (300,)))
    at.until(lambda: "Nothing was changed: SRS is 300 in all pixels but outliers" in at.text("#calibration"))
    at.page.get_by_label("Change to").select_option("damaged")
    at.page.get_by_role("button", name="Load and verify").click()
    at.until(lambda: "Nothing was changed: resnet50.onnx" in at.text("#changed"))


def test_the_page_requests_a_key(miniature: Path, seat, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    read, classify = (add_key(file, name, (name,)) for name in ("read", "classify"))
    server = start_server(miniature, tmp_path / "log.txt", "--api-keys", str(file))
    try:
        at = seat(server.url)
        login = at.page.locator("#login")
        at.until(login.is_visible)
        refusals = {"schlüssel €": "cannot be a key", "x" * 40: "is invalid", classify: "needs read"}
        for wrong, why in refusals.items():
            at.page.get_by_role("textbox", name="API key").fill(wrong)
            at.page.get_by_role("button", name="Log in").click()
            at.until(lambda why=why: login.is_visible() and why in at.text("#loginwhy"))
        at.page.get_by_role("textbox", name="API key").fill(read)
        at.page.get_by_role("button", name="Log in").click()
        at.until(lambda: at.text("#connection").endswith("Connected"))
        with Scan(server) as scan:
            scan.publisher.publish(mini.bright())
            at.until(lambda: at.text("#label") == "senescent")
        at.page.reload()
        at.until(lambda: at.text("#connection").endswith("Connected"))
        at.page.locator("#file").set_input_files(tiff(tmp_path, (900,)))
        at.until(lambda: "needs classify" in at.text("#toasts"))
        # Revoked while the page is open, which then closes its live socket.
        revoke_key(file, "read")
        at.until(lambda: login.is_visible() and "is invalid" in at.text("#loginwhy"))
        everything = {"Authorization": f"Bearer {add_key(file, 'all', ('admin',))}"}
        at.until(lambda: live_clients(server, everything) == 0)
    finally:
        stop_server(server)


def test_the_page_is_complete_on_this_server_and_never_stale(server: Server, seat) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    hosts = at.page.evaluate(
        "performance.getEntriesByType('resource').map((entry) => new URL(entry.name).host)"
    )
    assert set(hosts) == {server.url.removeprefix("http://")}
    script = httpx.get(f"{server.url}/dashboard/main.js")
    assert script.headers["Cache-Control"] == "no-cache"
    again = httpx.get(f"{server.url}/dashboard/main.js", headers={"If-None-Match": script.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(server.url).status_code == 200
    missing = httpx.get(f"{server.url}/dashboard/other.js")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert httpx.get(f"{server.url}/dashboard/..%2fcli.py").status_code == 404


def test_the_page_reports_that_there_is_no_run_log_and_no_stream(
    miniature: Path, seat, tmp_path: Path
) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--database-url", "none", "--stream", "")
    try:
        at = seat(server.url)
        at.until(lambda: at.text("#stream") == "No stream")
        at.page.locator("#file").set_input_files(tiff(tmp_path, (900, 60)))
        at.until(lambda: at.seen() == 2 and at.text("#label") == "senescent")
        assert "turned off" in at.text("#health")
        at.page.locator("#live").get_by_role("button", name="Export CSV").click()
        at.until(lambda: "the run log is turned off" in at.text("#toasts"))
        # The results that this page received are still there, and can be opened again.
        stack = at.page.locator("#series").input_value()
        at.page.get_by_label("Series", exact=True).select_option("uploads")
        at.until(lambda: at.seen() == 2 and "FOV" in at.text("#where"))
        at.page.get_by_label("Series", exact=True).select_option(stack)
        at.until(lambda: at.seen() == 2 and "stack.tif" in at.text("#where"))
    finally:
        stop_server(server)
