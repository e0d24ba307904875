"""Texts and marks of the page: reliability, positions, times, deadlines; and zooming."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Route

from senoscope_client import Position
from senoscope_client.wire.messages import EndHeader, StartHeader, encode
from support import miniature as mini
from support.dashboard_page import Seat
from support.image_bytes import npy
from support.microscopes import COLUMNS, PITCH_UM, Scan
from support.raw_microscope import Microscope
from support.servers import Server, start_server, stop_server

pytestmark = pytest.mark.system("chromium")


def colour(at: Seat, selector: str) -> str:
    return at.page.locator(selector).first.evaluate("(e) => getComputedStyle(e).color")


def top(at: Seat, selector: str) -> float:
    box = at.page.locator(selector).bounding_box()
    assert box is not None
    return box["y"]


def test_the_first_paint_says_connecting(server: Server, seat) -> None:
    at = seat(server.url)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    for path in ("**/v1/**", "**/readyz"):
        at.page.route(path, hold)
    at.page.reload(wait_until="load")
    at.until(lambda: held)
    assert at.text("#connection").endswith("Connecting")
    assert at.text("#empty") == "Connecting to the service…"
    assert at.page.locator("#stream").is_hidden()
    assert "Start a scan" not in at.text("body")
    at.page.unroute_all(behavior="ignoreErrors")  # the page repeats the requests
    at.until(lambda: at.text("#connection").endswith("Connected"))
    at.until(lambda: at.page.locator("#stream").is_visible())


@pytest.mark.parametrize(
    ("level", "flag"), [(4000, "SRS saturated in 100 % of pixels"), (0, "almost no signal")]
)
def test_an_unreliable_probability_is_grey_and_below_its_flag(
    server: Server, seat, new_scan, level: int, flag: str
) -> None:
    at = seat(server.url)
    with new_scan(f"plate of {level} counts") as scan:
        scan.go((500,))
        at.until(lambda: f"plate of {level} counts · FOV 0" in at.text("#where"))
        plain = colour(at, "#probability")
        assert "⚠" not in at.page.title()
        scan.publisher.publish(mini.bright(level=level), position_um=Position(x=PITCH_UM, y=0.0, z=0.0))
        at.until(lambda: flag in at.text("#flags"))
        assert colour(at, "#probability") != plain
        assert top(at, "#label") < top(at, "#flags") < top(at, "#probability")
        at.until(lambda: "1 unreliable" in at.text("#mapkey"))
        at.until(lambda: at.page.title().startswith("⚠"))
        at.page.keyboard.press("ArrowLeft")
        at.until(lambda: "FOV 0" in at.text("#where"))
        assert colour(at, "#probability") == plain
        at.page.get_by_role("link", name="History").click()
        at.until(lambda: at.page.locator("#rows td.unreliable").count() == 1)


def test_the_picture_is_zoomed_and_dragged(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        scan.go((500,))
    at = seat(server.url)
    at.until(lambda: at.seen() == 1 and at.page.locator("#scale").is_visible())
    main, stage = at.page.locator("#main"), at.page.locator(".stage").bounding_box()
    assert stage is not None
    middle = (stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)

    def pixel() -> tuple[int, int]:
        at.page.mouse.move(middle[0] + 1, middle[1])
        at.page.mouse.move(*middle)
        found = re.search(r"row (\d+), column (\d+)", at.text("#readout"))
        assert found is not None, at.text("#readout")
        return int(found[1]), int(found[2])

    whole = pixel()
    assert abs(whole[0] - 125) <= 1
    assert abs(whole[1] - 150) <= 1
    bar = at.text("#scale")
    # The readout is next to the scale bar.
    scale, readout = at.page.locator("#scale").bounding_box(), at.page.locator("#readout").bounding_box()
    assert scale is not None
    assert readout is not None
    assert 0 <= readout["x"] - scale["x"] - scale["width"] < 30
    for _ in range(6):
        at.page.mouse.wheel(0, -100)
    at.until(lambda: at.text("#zoomfit") == "3.4\N{MULTIPLICATION SIGN}")
    assert pixel() == pytest.approx(whole, abs=1), "the pixel under the pointer stays there"
    assert float(at.text("#scale").split()[0]) < float(bar.split()[0])
    at.page.mouse.down()
    at.page.mouse.move(middle[0] + 80, middle[1] + 40)
    at.page.mouse.up()
    row, column = pixel()
    assert row < whole[0] - 3
    assert column < whole[1] - 3
    scale, pane = at.page.locator("#scale").bounding_box(), stage
    assert scale is not None
    assert pane["x"] <= scale["x"] <= scale["x"] + scale["width"] <= pane["x"] + pane["width"]
    at.page.keyboard.press("f")
    assert at.text("#zoomfit") == "1\N{MULTIPLICATION SIGN}"
    assert pixel() == whole
    at.page.get_by_role("button", name="Zoom in").click()
    assert at.text("#zoomfit") == "1.5\N{MULTIPLICATION SIGN}"
    at.page.get_by_role("button", name="Whole field of view").click()
    assert main.evaluate("(e) => e.style.transform") == ""


def test_planned_and_missing_places_are_on_the_map(server: Server, seat, no_microscope: None) -> None:
    at = seat(server.url)
    scope = Microscope(server.frames)
    try:
        scope.send(encode(StartHeader(**scope.common(), planned_frames=20)))
        for frame in range(13):
            row, column = divmod(frame, COLUMNS)
            place = Position(x=column * PITCH_UM, y=row * PITCH_UM, z=0.0)
            if frame == 8:
                scope.send(scope.frame(frame, np.zeros((3, 8, 8), np.uint16), position_um=place))
            elif frame != 6:
                scope.send(scope.frame(frame, position_um=place))
                at.until(lambda frame=frame: f"FOV {frame} " in at.text("#where"))
        key = ("7 planned", "1 not received", "1 refused")
        at.until(lambda: all(words in at.text("#mapkey") for words in key))
        assert "unknown" not in at.text("#mapkey")
        said = hovered_texts(at)
        assert {"FOV 6 · not received", "FOV 8 · refused"} <= said
        assert {f"FOV {n} · planned" for n in range(13, 20)} <= said
        assert any(re.match(r"FOV 7 · senescent .* agreement 100 %", text) for text in said)
        scope.send(encode(EndHeader(**scope.common(), frames_sent=11, reason="stopped")))
        at.until(lambda: "planned" not in at.text("#mapkey") and "1 not received" in at.text("#mapkey"))
        said = hovered_texts(at, "#timeline")
        assert any(text.endswith(" · before it: FOV 6 not received") for text in said)
        assert any(text.endswith(" · before it: FOV 8 refused") for text in said)
    finally:
        scope.close()


def hovered_texts(at: Seat, picture: str = "#map") -> set[str]:
    """Return all tooltips of the map, or of the timeline."""
    said = at.page.locator(picture).evaluate(
        """(picture) => {
            const tip = document.getElementById("tip");
            const { left, top, width, height } = picture.getBoundingClientRect();
            const said = new Set();
            for (let y = 3; y < height; y += 6) {
                for (let x = 3; x < width; x += 6) {
                    const at = { clientX: left + x, clientY: top + y };
                    picture.dispatchEvent(new PointerEvent("pointermove", at));
                    if (tip.checkVisibility()) said.add(tip.innerText);
                }
            }
            return [...said];
        }"""
    )
    at.page.keyboard.press("Escape")
    assert at.page.locator("#tip").is_hidden()
    return set(said)


@pytest.mark.parametrize("pattern", ["raster", "serpentine", "columns", "from the right", "jitter"])
def test_places_are_found_in_any_raster(scripts: Page, pattern: str) -> None:
    def place(frame: int) -> tuple[float, float]:
        row, column = divmod(frame, 6)
        if pattern == "serpentine" and row % 2:
            column = 5 - column
        if pattern == "from the right":
            column = 5 - column
        x, y = column * 80.0 - 7000, row * 95.0 + 12
        if pattern == "jitter":
            x, y = x + (frame * 37 % 11) / 11, y + (frame * 53 % 7) / 7
        return (y, x) if pattern == "columns" else (x, y)

    gone = {0, 8, 9, 16}
    entries = [
        {"frame": n, "place": dict(zip("xy", place(n), strict=True))} for n in range(20) if n not in gone
    ]
    summary = {"first_frame": 0, "last_frame": 19, "planned_frames": 24, "state": "open"}
    found = scripts.evaluate(
        """async ([entries, summary]) => {
            const { withoutResult } = await import("./scanplan.js");
            return withoutResult(entries, summary);
        }""",
        [entries, summary],
    )
    assert {one["frame"]: one["kind"] for one in found} == (
        dict.fromkeys(gone, "unknown") | dict.fromkeys(range(20, 24), "planned")
    )
    for one in found:
        x, y = place(one["frame"])
        assert (one["place"]["x"], one["place"]["y"]) == pytest.approx((x, y), abs=4)


def test_each_frame_without_a_result_has_its_reason(scripts: Page) -> None:
    entries = [{"frame": n, "place": None} for n in (0, 4, 9)]
    ranges = [
        {"first": 1, "last": 1, "reason": "failed"},
        {"first": 2, "last": 3, "reason": "dropped"},
        {"first": 5, "last": 5, "reason": "refused"},
        {"first": 7, "last": 7, "reason": "missing"},
        {"first": 8, "last": 8, "reason": "of a later version"},
    ]
    found = scripts.evaluate(
        """async ([entries, ranges]) => {
            const { withoutResult } = await import("./scanplan.js");
            return withoutResult(entries, { first_frame: 0, planned_frames: 12, state: "open" }, ranges);
        }""",
        [entries, ranges],
    )
    kinds = ["failed", "dropped", "dropped", "refused", "unknown", "missing", "unknown", "planned", "planned"]
    assert [(one["frame"], one["kind"]) for one in found] == [
        *zip((1, 2, 3, 5, 6, 7, 8, 10, 11), kinds, strict=True)
    ]


def test_places_that_form_no_raster_are_not_guessed(scripts: Page) -> None:
    places = [(0, 0), (50, 10), (20, 90), (77, 31), (3, 44), (61, 70)]
    entries = [{"frame": n, "place": dict(zip("xy", places[n], strict=True))} for n in range(6) if n != 2]
    found = scripts.evaluate(
        """async (entries) => {
            const { withoutResult } = await import("./scanplan.js");
            return withoutResult(entries, { first_frame: 0, planned_frames: 8, state: "open" });
        }""",
        entries,
    )
    assert found == [
        {"frame": n, "kind": kind, "place": None}
        for n, kind in ((2, "unknown"), (6, "planned"), (7, "planned"))
    ]


def test_history_has_files_an_empty_state_and_24_hours(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        scan.go((900, 60))
    at = seat(f"{server.url}/#history")
    at.until(lambda: at.page.locator("#rows tr").count() == 2)
    time = at.page.locator("#rows tr td:nth-child(2)").first.inner_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d ([01]\d|2[0-3]):[0-5]\d:[0-5]\d", time)
    assert at.page.locator("#nothing").is_hidden()
    at.page.get_by_label("Since").fill("2099-01-01 17:05")
    at.until(lambda: "No field of view passes the filter" in at.text("#nothing"))
    at.page.get_by_label("Since").fill("2001-02-29")
    at.until(lambda: "is not a valid time and is ignored" in at.text("#matches"))
    assert at.page.get_by_label("Since").get_attribute("aria-invalid") == "true"
    assert at.page.locator("#rows tr").count() == 2
    at.page.get_by_label("Since").fill(time)
    at.until(lambda: at.page.locator("#rows tr").count() >= 1)
    at.page.get_by_label("Since").fill("")
    named = {"file": ("plate_7 <b>.npy", npy(mini.bright()))}
    assert httpx.post(f"{server.url}/v1/classify", files=named, timeout=60).status_code == 200
    at.page.get_by_label("Series", exact=True).select_option("uploads")
    at.until(lambda: at.page.locator("#rows tr").count() >= 1)
    headings = at.page.locator("#history thead th").all_inner_texts()
    column = [heading.strip().lower() for heading in headings].index("file") + 1
    files = at.page.locator(f"#rows tr td:nth-child({column})")
    at.until(lambda: files.first.inner_text() == "plate_7 <b>.npy")


def test_a_long_banner_takes_one_line(server: Server, seat, no_microscope: None) -> None:
    at = seat(server.url, width=1024)
    at.until(at.page.locator("#banner").is_visible)  # no microscope
    at.until(at.page.locator("#starter").is_visible)
    text = "The stream is silent. " * 30
    height = at.page.evaluate(
        """(text) => {
            document.querySelector("#starter span").textContent = text;
            return document.getElementById("starter").offsetHeight;
        }""",
        text,
    )
    assert height < 40
    more = at.page.locator("#starter button")
    more.click()
    assert at.page.locator("#starter").evaluate("(e) => e.offsetHeight") > height
    more.click()
    assert at.page.locator("#starter").evaluate("(e) => e.offsetHeight") < 40


def test_without_a_deadline_no_result_is_late(miniature: Path, seat, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt")
    try:
        at = seat(server.url)
        at.until(lambda: at.text("#connection").endswith("Connected"))
        with Scan(server) as scan:
            results = scan.go((900, 60))
            assert not any("deadline_met" in result for result in results)
            at.until(lambda: at.seen() == 2 and "networks" in at.text("#latency"))
            at.until(lambda: "no deadline" in at.text("#health"))
            at.page.get_by_role("link", name="History").click()
            at.until(lambda: at.page.locator("#rows tr").count() == 2)
            assert "late" not in at.text("#rows")
            at.page.get_by_role("link", name="Live").click()
            assert not re.search(r"\blate\b", at.text("#latency") + at.text("#timelinesummary"))
    finally:
        stop_server(server)


def test_every_late_result_is_marked_if_a_deadline_is_set(miniature: Path, seat, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--deadline-ms", "0.01")
    try:
        at = seat(server.url)
        at.until(lambda: at.text("#connection").endswith("Connected"))
        with Scan(server) as scan:
            assert not any(result["deadline_met"] for result in scan.go((900, 60)))
            at.until(lambda: at.seen() == 2 and at.text("#latency").count("late") == 1)
            at.until(lambda: "2 late" in at.text("#timelinesummary"))
            at.page.get_by_role("link", name="History").click()
            at.until(lambda: at.text("#rows").count("late") == 2)
    finally:
        stop_server(server)


def test_a_full_hd_screen_is_used(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        scan.go((900,))
    at = seat(server.url, width=1920, height=1080)
    at.until(lambda: at.seen() == 1)
    stage = at.page.locator(".stage").bounding_box()
    assert stage is not None
    shown = min(stage["width"] / 300, stage["height"] / 250)
    assert shown * 300 > 800, "the picture is most of the screen"
    assert at.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert at.page.evaluate(
        "document.querySelector('main').scrollHeight <= document.querySelector('main').clientHeight"
    )
