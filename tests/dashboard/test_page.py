"""Each feature of the dashboard once, as a user operates it, with the miniature ensemble."""

from __future__ import annotations

import csv
import io
import re
import time
import uuid

import cv2
import numpy as np
import pytest
import zmq
from playwright.sync_api import BrowserContext, Route

from senoscope_client import Position
from senoscope_client.wire.messages import ImageHeader, Timestamp, encode
from support import miniature as mini
from support.dashboard_page import Seat
from support.microscopes import COLUMNS, LEVELS, logged
from support.servers import Server

pytestmark = pytest.mark.system("chromium")


def centre_of(seat: Seat, column: int, row: int, columns: int, rows: int) -> tuple[float, float]:
    """Where on the stage map the field of view of a full grid lies, from what is drawn there."""
    box = seat.page.locator("#map").bounding_box()
    assert box is not None
    picture = cv2.imdecode(np.frombuffer(seat.page.locator("#map").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    filled = np.argwhere(picture.astype(int).max(axis=2) > 60)
    (top, left), (bottom, right) = filled.min(axis=0), filled.max(axis=0)
    x = left + (column + 0.5) / columns * (right - left)
    y = top + (row + 0.5) / rows * (bottom - top)
    return box["x"] + x, box["y"] + y


def test_a_scan_is_shown_live(server: Server, seat, new_scan) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    at.until(lambda: at.page.locator("#starter").is_visible())  # the ensemble is not for science
    assert at.page.locator("#flags .none").inner_text() == "no flags", "shown in another style than flags"
    with new_scan("plate 3, well B2", planned=20) as scan:
        results = scan.go()
        at.until(lambda: at.seen() == len(LEVELS))
        newest = results[-1]
        at.until(lambda: f"plate 3, well B2 · FOV {newest['source']['frame']}" in at.text("#where"))
        assert at.text("#label") == newest["label"]
        assert at.text("#probability") == f"{newest['probability']:.2f}"
        votes = at.page.locator("#votes li").all_inner_texts()
        assert [vote.split()[0] for vote in votes] == list(newest["networks"])
        shown = [vote.split()[1] for vote in votes]
        assert shown == [f"{p:.2f}" for p in newest["networks"].values()]
        assert "of 7 networks agree" in at.text("#uncertainty")
        assert re.search(r"of 500 ms: in time", at.text("#latency"))
        at.until(lambda: at.text("#stream").endswith("Scanning"))  # polled every second
        at.until(lambda: at.text("#progress").startswith("10 of 20 fields of view"))
        title = f"{newest['probability']:.2f} {newest['label']}"
        at.until(lambda: at.page.title().startswith(title))
        # A field of view beyond the range has a flag.
        scan.go((2000,))
        at.until(lambda: "SRS saturated in 100 % of pixels" in at.text("#flags"))
        at.shoot("live")


def test_a_paused_page_shows_the_field_of_view_that_the_user_selects(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        results = scan.go()
        at = seat(server.url)
        at.until(lambda: at.seen() == 10)
        at.page.keyboard.press("Space")
        assert at.text("#follow") == "Follow"
        at.page.mouse.click(*centre_of(at, 3, 1, COLUMNS, 2))
        at.until(lambda: "FOV 8" in at.text("#where"))
        assert at.text("#probability") == f"{results[8]['probability']:.2f}".replace("1.00", ">0.99")
        scan.go((100, 100))
        at.until(lambda: at.seen() == 12)
        assert "FOV 8" in at.text("#where"), "new results do not change the selection"
        for key, frame in (("ArrowLeft", 7), ("ArrowLeft", 6), ("ArrowRight", 7)):
            at.page.keyboard.press(key)
            at.until(lambda frame=frame: f"FOV {frame}" in at.text("#where"))
        # The timeline is a slider; arrow keys select on the map.
        at.page.locator("#map").focus()
        at.page.keyboard.press("ArrowUp")
        at.until(lambda: "FOV 2" in at.text("#where"))
        timeline = at.page.locator("#timeline")
        timeline.click(position={"x": 30, "y": 20})
        at.until(lambda: "FOV 0" in at.text("#where"))
        at.until(lambda: "field of view 0" in (timeline.get_attribute("aria-valuetext") or ""))
        at.page.get_by_role("button", name="Follow").click()
        at.until(lambda: "FOV 11" in at.text("#where"))


def test_channels_networks_and_the_map(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        scan.go((500,))
    at = seat(server.url)
    at.until(lambda: at.seen() == 1)
    main = at.page.locator("#main")
    at.until(lambda: "Grad-CAM of the ensemble" in (main.get_attribute("aria-label") or ""))
    seen = {main.screenshot()}

    def looks_new() -> None:
        at.drawn()
        picture = main.screenshot()
        assert picture not in seen
        seen.add(picture)

    at.page.get_by_label("TPEF", exact=True).check(force=True)
    looks_new()
    at.page.get_by_label("Colour", exact=True).check(force=True)
    looks_new()
    at.page.get_by_label("Network of the Grad-CAM").select_option("densenet121")
    looks_new()
    assert "Grad-CAM of densenet121" in (main.get_attribute("aria-label") or "")
    at.page.get_by_label("Opacity of the Grad-CAM").fill("20")
    looks_new()
    at.page.get_by_label("Display of the Grad-CAM").select_option("intensity")
    looks_new()
    at.page.get_by_label("Contrast").select_option("range")
    at.page.get_by_label("Contrast").focus()
    at.page.keyboard.press("g")  # shortcuts are inactive while a list has the focus
    assert "without Grad-CAM" not in (main.get_attribute("aria-label") or "")
    at.page.get_by_label("SRS", exact=True).check(force=True)
    at.drawn()
    at.page.keyboard.press("g")
    looks_new()
    assert "without Grad-CAM" in (main.get_attribute("aria-label") or "")
    at.page.keyboard.press("3")
    looks_new()
    main.hover(position={"x": 200, "y": 150})
    assert re.search(r"row \d+, column \d+: SRS 5\d\d, TPEF 5\d\d, Transmission 5\d\d", at.text("#readout"))


def test_history_is_filtered_and_exported(server: Server, seat, new_scan) -> None:
    with new_scan("=plate") as scan:
        results = scan.go()
    at = seat(server.url)
    at.until(lambda: at.seen() == 10)
    at.page.get_by_role("link", name="History").click()
    assert at.page.locator("#rows tr").count() == 10
    wanted = [result for result in results if result["label"] == "senescent"]
    assert 0 < len(wanted) < 10
    at.page.get_by_label("Label").select_option("senescent")
    assert at.page.locator("#rows tr").count() == len(wanted)
    least = sorted(result["probability"] for result in wanted)[1]
    at.page.get_by_label("Probability from").fill(f"{least:.3f}")
    wanted = [result for result in wanted if result["probability"] >= float(f"{least:.3f}")]
    assert at.text("#matches").startswith(f"{len(wanted)} of 10 fields of view")
    at.shoot("history")
    with at.page.expect_download() as download:
        at.page.locator("#history").get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert {row["id"] for row in rows} == {result["id"] for result in wanted}
    assert download.value.suggested_filename == "senoscope-_plate.csv"
    with at.page.expect_download() as download:
        at.page.get_by_role("button", name="Export Parquet").click()
    assert download.value.path().read_bytes().startswith(b"PAR1")
    at.page.get_by_role("button", name="Clear").click()
    at.until(lambda: at.page.locator("#rows tr").count() == 10)
    at.page.get_by_label("Since").fill("2099-01-01T00:00:00")
    at.until(lambda: at.page.locator("#rows tr").count() == 0)
    at.page.get_by_role("button", name="Clear").click()
    at.page.get_by_role("button", name="Show field of view 3", exact=True).click()
    at.until(lambda: "FOV 3" in at.text("#where"))


def test_an_earlier_series_is_opened_again(server: Server, seat, new_scan) -> None:
    with new_scan("yesterday") as first:
        first.go((900, 100, 900))
    with new_scan("today") as second:
        second.go((100, 100))
        at = seat(server.url)
        at.until(lambda: "today" in at.text("#where") and at.seen() == 2)
        at.page.get_by_label("Series", exact=True).select_option(f"series:{first.uid}")
        at.until(lambda: "yesterday · FOV 2" in at.text("#where") and at.seen() == 3)
        second.go((100,))
        at.until(lambda: at.received(1))
        at.drawn()
        assert "yesterday" in at.text("#where"), "the scan of today is not followed"
        at.page.get_by_role("button", name="Follow").click()
        at.until(lambda: "today · FOV 2" in at.text("#where") and at.seen() == 3)


def test_one_of_two_microscopes_is_followed(server: Server, seat, no_microscope: None) -> None:
    """Both send on one stream, as through a proxy: the results of the second do not change the view."""
    at = seat(server.url)
    # The microscope of the first live result is followed.
    at.until(lambda: at.text("#connection").endswith("Connected"))
    with zmq.Context.instance().socket(zmq.XPUB) as socket:
        socket.bind(server.frames)
        assert socket.poll(10_000)
        uids = {"nlo-1": uuid.uuid4(), "nlo-2": uuid.uuid4()}
        pixels = mini.bright()
        for frame in range(3):
            for instrument, uid in uids.items():
                header = ImageHeader(
                    instrument=instrument,
                    series_id=f"series of {instrument}",
                    series_uid=uid,
                    frame=frame,
                    shape=pixels.shape,
                    dtype="uint16",
                    channels=("SRS", "TPEF", "Transmission"),
                    timestamp=Timestamp.from_ns(time.time_ns()),
                    pixel_size_um=0.35,
                )
                socket.send_multipart(encode(header, pixels))
                at.until(lambda: f"series of nlo-1 · FOV {frame}" in at.text("#where"))  # noqa: B023
        at.until(lambda: at.received(6))
        assert len(logged(server, uids["nlo-2"])) == 3
        at.drawn()
        assert "series of nlo-1 · FOV 2" in at.text("#where")


def test_an_empty_list_shows_no_verdict(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        scan.go((900,))
        scan.publisher.end_series()
        empty = scan.publisher.start_series("nothing in it")
        server.wait(lambda status: status["receiver"]["series"][0]["series_id"] == "nothing in it")
        at = seat(server.url)
        at.until(lambda: at.page.locator(f"#series option[value='series:{empty}']").count() == 1)
        at.page.get_by_label("Series", exact=True).select_option(f"series:{scan.uid}")
        at.until(lambda: at.text("#label") == "senescent")
        at.page.get_by_label("Series", exact=True).select_option(f"series:{empty}")
        at.until(lambda: at.text("#label") == "\N{EN DASH}" and at.page.locator("#empty").is_visible())


def test_requests_that_fail_when_the_page_opens_are_repeated(
    server: Server, context: BrowserContext, new_scan
) -> None:
    lost = []

    def lose_once(route: Route) -> None:
        if route.request.url in lost:
            route.fallback()
        else:
            lost.append(route.request.url)
            route.abort()

    with new_scan() as scan:
        scan.go((900,))
        page = context.new_page()
        for path in ("v1/model", "v1/models", "v1/normalization", "v1/series?limit=50"):
            page.route(f"{server.url}/{path}", lose_once)
        page.goto(server.url)
        at = Seat(page)
        at.until(lambda: at.text("#label") == "senescent" and "Connected" in at.text("#connection"), 20)
        assert len(lost) == 4
        scan.go((60,))
        at.until(lambda: at.text("#label") == "control")
        page.close()


def test_a_series_that_is_chosen_while_the_page_opens_stays(
    server: Server, context: BrowserContext, new_scan
) -> None:
    requests: list[Route] = []

    def hold_all_but_the_first(route: Route) -> None:
        requests.append(route)
        if len(requests) == 1:
            route.continue_()

    with new_scan() as scan:
        scan.go((900,))
        scan.publisher.end_series()
        scan.publisher.start_series("newer")
        server.wait(lambda status: status["receiver"]["series"][0]["series_id"] == "newer")
        page = context.new_page()
        page.route(f"{server.url}/v1/series?limit=50", hold_all_but_the_first)
        page.goto(server.url)
        at = Seat(page)
        chosen = f"series:{scan.uid}"
        at.until(lambda: at.page.locator(f"#series option[value='{chosen}']").count() == 1)
        at.page.get_by_label("Series", exact=True).select_option(chosen)
        at.until(lambda: at.text("#label") == "senescent")
        at.until(lambda: len(requests) > 1)
        with page.expect_response(f"{server.url}/v1/series?limit=50") as answer:
            requests[1].continue_()
        answer.value.finished()
        at.drawn()
        assert at.page.locator("#series").input_value() == chosen
        page.unroute_all(behavior="ignoreErrors")
        page.close()


def test_a_list_under_the_pointer_does_not_change(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        scan.go((900, 60))
        at = seat(f"{server.url}/#history")
        rows = at.page.locator("#rows tr")
        at.until(lambda: rows.count() == 2)
        rows.first.hover()
        scan.go((900, 900))
        at.until(lambda: "when the pointer or the focus leaves" in at.text("#page"))
        assert rows.count() == 2
        at.page.mouse.move(5, 5)
        at.until(lambda: rows.count() == 4)


def test_fields_of_view_far_from_each_other_can_be_clicked(server: Server, seat, new_scan) -> None:
    at = seat(server.url)
    with new_scan("wide plate") as scan:
        for n, (x, y) in enumerate(((0, 0), (99_000, 0), (0, 63_000), (99_000, 63_000))):
            scan.publisher.publish(mini.bright(level=900 - n), position_um=Position(x=x, y=y, z=0.0))
            at.until(lambda n=n: f"wide plate · FOV {n}" in at.text("#where"))
        at.until(lambda: at.seen() == 4)

        def hit() -> bool:
            at.page.mouse.click(*centre_of(at, 0, 0, 60, 60))
            at.drawn()
            return "FOV 0" in at.text("#where")

        at.until(hit)  # the tile has five pixels and may still move


def test_the_map_does_not_move_with_the_text_of_the_latency(server: Server, seat) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))

    # In one call, between which nothing else on the page can change, such as a notice that appears.
    measure = """(texts) => texts.map((text) => {
      document.getElementById("latency").textContent = text;
      return JSON.stringify(document.getElementById("map").getBoundingClientRect());
    })"""
    texts = [
        "8 ms of 24 ms: in time",
        "710 ms of 24 ms: late (waiting 3.1 ms, networks 706 ms, other 0.7 ms)",
    ]
    short, long = at.page.evaluate(measure, texts)
    assert short == long


def test_on_a_tablet_nothing_is_cut_off(server: Server, seat, new_scan) -> None:
    with new_scan() as scan:
        scan.go((900, 60))
    at = seat(server.url, width=820, height=1180)
    at.until(lambda: at.seen() == 2)
    for width, height in ((820, 1180), (1024, 768), (390, 844)):
        at.page.set_viewport_size({"width": width, "height": height})
        assert at.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        cut = at.page.evaluate(
            """[...document.querySelectorAll("#live button, #live select, #live input, .top button")]
                .filter((e) => e.checkVisibility() && !e.closest(".segments"))
                .map((e) => [e.id || e.textContent, e.getBoundingClientRect()])
                .filter(([, r]) => r.left < 0 || r.right > innerWidth || r.height < 40 && r.width < 40)
                .map(([name]) => name)"""
        )
        assert cut == []
        at.shoot(f"tablet-{width}")
