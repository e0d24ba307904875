"""Each feature of the dashboard once, as a person would use it, on the miniature ensemble."""

from __future__ import annotations

import base64
import csv
import io
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import tifffile
import zmq
from playwright.sync_api import Browser, Route

import miniature as mini
from browsing import Seat
from senoscope.keys import add_key, revoke_key
from senoscope_client import FramePublisher, Position
from senoscope_client.wire import ImageHeader, Timestamp, encode
from serving import Server, start_server, stop_server

pytestmark = pytest.mark.system("chromium")

COLUMNS, PITCH_UM = 5, 100.0
LEVELS = (100, 200, 300, 350, 400, 450, 500, 600, 900, 150)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with other ensembles to change to, of which one is damaged; each test scans a series of its own."""
    models = tmp_path_factory.mktemp("models")
    mini.build(models / "miniature")
    mini.build(models / "other", name="other", seed=50)
    (mini.build(models / "damaged", name="damaged") / "resnet50.onnx").write_bytes(b"no network")
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ["--models-dir", str(models), "--deadline-ms", "500"]
    running = start_server(models / "miniature", log, *options)
    yield running
    stop_server(running)


class Scan:
    """A microscope under the test's own hands."""

    def __init__(self, server: Server, name: str = "plate 3, well B2", planned: int | None = None) -> None:
        self._server = server
        self.publisher = FramePublisher(server.frames, "nlo-1", heartbeat_s=0.3)
        assert self.publisher.wait_for_subscriber(10)
        self.uid = self.publisher.start_series(name, planned_frames=planned)
        self.sent = 0

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.publisher.close("completed")

    def go(self, levels: tuple[int, ...] = LEVELS) -> list[dict]:
        """Scan one FOV for each level; returns when all of the series are logged, oldest first."""
        for level in levels:
            row, column = divmod(self.sent, COLUMNS)
            place = Position(x=column * PITCH_UM, y=row * PITCH_UM, z=0.0)
            noise = np.random.default_rng(self.sent).integers(0, 40, (3, 250, 300))
            self.publisher.publish((noise + level).astype(np.uint16), position_um=place)
            self.sent += 1
            self._server.wait(lambda told: told["live"]["waiting"] == 0)
        while len(results := logged(self._server, self.uid)) < self.sent:
            pass
        return results


def live_clients(server: Server, headers: dict[str, str]) -> int:
    return httpx.get(f"{server.url}/v1/stream", headers=headers).json()["live_clients"]["connected"]


def logged(server: Server, uid: object) -> list[dict]:
    page = httpx.get(f"{server.url}/v1/results", params={"series": str(uid), "limit": 1000}).json()
    return page["results"][::-1]


def tiff(tmp_path: Path, levels: tuple[int, ...], **options: object) -> Path:
    path = tmp_path / "stack.tif"
    stack = np.stack([mini.bright(level=level) for level in levels])
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"}, **options)
    return path


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


def test_a_scan_is_watched_as_it_goes(server: Server, seat) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    assert at.page.locator("#starter").is_visible(), "an ensemble that is not for science says so"
    with Scan(server, planned=20) as scan:
        results = scan.go()
        at.until(lambda: at.seen() == len(LEVELS))
        newest = results[-1]
        at.until(lambda: f"FOV {newest['source']['frame']}" in at.text("#where"))
        assert "plate 3, well B2" in at.text("#where")
        assert at.text("#label") == newest["label"]
        assert at.text("#probability") == f"{newest['probability']:.2f}"
        votes = at.page.locator("#votes li").all_inner_texts()
        assert [vote.split()[0] for vote in votes] == list(newest["networks"])
        shown = [vote.split()[1] for vote in votes]
        assert shown == [f"{p:.2f}" for p in newest["networks"].values()]
        assert "of 7 networks agree" in at.text("#uncertainty")
        assert re.search(r"of 500 ms: in time", at.text("#latency"))
        assert at.text("#stream").endswith("Scanning")
        at.until(lambda: at.text("#progress").startswith("10 of 20 fields of view"))
        title = f"{newest['probability']:.2f} {newest['label']}"
        at.until(lambda: at.page.title().startswith(title))
        # A field of view beyond the range is told in words.
        scan.go((2000,))
        at.until(lambda: "SRS saturated in 100 % of pixels" in at.text("#flags"))
        at.shoot("live")


def test_paused_one_looks_at_what_one_likes(server: Server, seat) -> None:
    with Scan(server) as scan:
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
        assert "FOV 8" in at.text("#where"), "what comes meanwhile does not take it away"
        for key, frame in (("ArrowLeft", 7), ("ArrowLeft", 6), ("ArrowRight", 7)):
            at.page.keyboard.press(key)
            at.until(lambda frame=frame: f"FOV {frame}" in at.text("#where"))
        # The timeline is a slider, the map a field that arrows walk over.
        at.page.locator("#map").focus()
        at.page.keyboard.press("ArrowUp")
        at.until(lambda: "FOV 2" in at.text("#where"))
        timeline = at.page.locator("#timeline")
        timeline.click(position={"x": 30, "y": 20})
        at.until(lambda: "FOV 0" in at.text("#where"))
        at.until(lambda: "field of view 0" in (timeline.get_attribute("aria-valuetext") or ""))
        at.page.get_by_role("button", name="Follow").click()
        at.until(lambda: "FOV 11" in at.text("#where"))


def test_channels_networks_and_the_map(server: Server, seat) -> None:
    with Scan(server) as scan:
        scan.go((500,))
    at = seat(server.url)
    at.until(lambda: at.seen() == 1)
    main = at.page.locator("#main")
    at.until(lambda: "Grad-CAM of the ensemble" in (main.get_attribute("aria-label") or ""))
    seen = {main.screenshot()}

    def looks_new() -> None:
        at.page.wait_for_timeout(150)
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
    at.page.get_by_label("Grad-CAM shown").select_option("intensity")
    looks_new()
    at.page.get_by_label("Contrast").select_option("range")
    at.page.get_by_label("Contrast").focus()
    at.page.keyboard.press("g")  # shortcuts are not for who chooses from a list
    assert "without Grad-CAM" not in (main.get_attribute("aria-label") or "")
    at.page.get_by_label("SRS", exact=True).check(force=True)
    at.page.wait_for_timeout(150)
    at.page.keyboard.press("g")
    looks_new()
    assert "without Grad-CAM" in (main.get_attribute("aria-label") or "")
    at.page.keyboard.press("3")
    looks_new()
    main.hover(position={"x": 200, "y": 150})
    assert re.search(r"row \d+, column \d+: SRS 5\d\d, TPEF 5\d\d, Transmission 5\d\d", at.text("#readout"))


def test_history_is_filtered_and_exported(server: Server, seat) -> None:
    with Scan(server, "=plate") as scan:
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


def test_an_earlier_series_is_opened_again(server: Server, seat) -> None:
    with Scan(server, "yesterday") as first:
        first.go((900, 100, 900))
    with Scan(server, "today") as second:
        second.go((100, 100))
        at = seat(server.url)
        at.until(lambda: "today" in at.text("#where") and at.seen() == 2)
        at.page.get_by_label("Series", exact=True).select_option(f"series:{first.uid}")
        at.until(lambda: "yesterday · FOV 2" in at.text("#where") and at.seen() == 3)
        second.go((100,))
        at.page.wait_for_timeout(300)
        assert "yesterday" in at.text("#where"), "today goes on, and is not looked at"
        at.page.get_by_role("button", name="Follow").click()
        at.until(lambda: "today · FOV 2" in at.text("#where") and at.seen() == 3)


def test_one_of_two_microscopes_is_followed(server: Server, seat) -> None:
    """Both on one stream, as through a proxy: what the other scans is recorded, and takes nothing away."""
    at = seat(server.url)
    # The first that is heard live is followed.
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
        while len(logged(server, uids["nlo-2"])) < 3:
            at.page.wait_for_timeout(50)
        at.page.wait_for_timeout(300)
        assert "series of nlo-1 · FOV 2" in at.text("#where")


def test_an_empty_list_shows_no_verdict(server: Server, seat) -> None:
    with Scan(server) as scan:
        scan.go((900,))
        at = seat(server.url)
        at.until(lambda: at.text("#label") == "senescent")
        publisher = scan.publisher
        publisher.end_series()
        empty = publisher.start_series("nothing in it")
        at.until(lambda: at.page.locator(f"#series option[value='series:{empty}']").count() == 1)
        at.page.get_by_label("Series", exact=True).select_option(f"series:{empty}")
        at.until(lambda: at.text("#label") == "\N{EN DASH}" and at.page.locator("#empty").is_visible())


def test_what_fails_when_the_page_opens_is_tried_again(server: Server, seat, browser: Browser) -> None:
    lost = []

    def lose_once(route: Route) -> None:
        if route.request.url in lost:
            route.fallback()
        else:
            lost.append(route.request.url)
            route.abort()

    with Scan(server) as scan:
        scan.go((900,))
        context = browser.new_context()
        page = context.new_page()
        for path in ("v1/model", "v1/models", "v1/normalization", "v1/series?limit=50"):
            page.route(f"{server.url}/{path}", lose_once)
        page.goto(server.url)
        at = Seat(page)
        at.until(lambda: at.text("#label") == "senescent" and "Connected" in at.text("#connection"), 20)
        assert len(lost) == 4
        scan.go((60,))
        at.until(lambda: at.text("#label") == "control")
        context.close()


def test_a_list_that_is_pointed_at_stands_still(server: Server, seat) -> None:
    with Scan(server) as scan:
        scan.go((900, 60))
        at = seat(f"{server.url}/#history")
        rows = at.page.locator("#rows tr")
        at.until(lambda: rows.count() == 2)
        rows.first.hover()
        scan.go((900, 900))
        at.until(lambda: "wait until you leave" in at.text("#page"))
        assert rows.count() == 2
        at.page.mouse.move(5, 5)
        at.until(lambda: rows.count() == 4)


def test_fields_of_view_far_from_each_other_are_seen_and_hit(server: Server, seat) -> None:
    at = seat(server.url)
    with Scan(server) as scan:
        for n, (x, y) in enumerate(((0, 0), (99_000, 0), (0, 63_000), (99_000, 63_000))):
            scan.publisher.publish(mini.bright(level=900 - n), position_um=Position(x=x, y=y, z=0.0))
            at.until(lambda n=n: at.seen() == n + 1)
        at.until(lambda: "FOV 3" in at.text("#where"))

        def hit() -> bool:
            at.page.mouse.click(*centre_of(at, 0, 0, 60, 60))
            at.page.wait_for_timeout(300)
            return "FOV 0" in at.text("#where")

        at.until(hit)  # the page may still be moving what is five pixels large


def test_a_stack_is_dropped_on_the_page(server: Server, seat, tmp_path: Path) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    path = tiff(tmp_path, (900, 60, 900, 400))
    # A drop as the browser makes it, file and all.
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


def test_what_others_posted_in_the_same_moment_is_not_in_the_export_of_a_stack(server: Server, seat) -> None:
    mine, other = (str(uuid.uuid4()) for _ in range(2))
    kept = seat(server.url).page.evaluate(
        """async ([csv, mine]) => {
            const { ofStack } = await import("./dashboard/history.js");
            return ofStack(csv, { known: new Map([[mine, {}]]) });
        }""",
        [f"id,file\n{other},a.tif\n{mine},stack.tif\n{other},a.tif\n", mine],
    )
    assert kept == f"id,file\n{mine},stack.tif\n"


def test_whoever_goes_on_to_another_view_is_not_taken_away(server: Server, seat, tmp_path: Path) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    at.page.locator("#file").set_input_files(tiff(tmp_path, (900, 60) * 20))
    at.page.get_by_role("link", name="Model and range").click()
    at.until(lambda: "is classified: 40 fields of view, under Live" in at.text("#toasts"))
    assert at.page.locator("#model").is_visible()
    at.page.get_by_role("link", name="Live").click()
    at.until(lambda: at.seen() == 40)


def test_a_stack_that_nobody_can_read_is_refused_in_words(server: Server, seat, tmp_path: Path) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    picture = tmp_path / "notes.tif"
    picture.write_text("no picture")
    at.page.locator("#file").set_input_files(picture)
    at.until(lambda: "notes.tif was not classified" in at.text("#toasts"))
    # Six bare pages may be two fields of view or one of six channels: the page asks.
    bare = tmp_path / "bare.tif"
    with tifffile.TiffWriter(bare) as writer:
        for page in np.concatenate([mini.bright(), mini.dark()]):
            writer.write(page, metadata=None)
    at.page.locator("#file").set_input_files(bare)
    at.until(lambda: at.page.locator("#axes").is_visible())
    assert "axes" in at.text("#axeswhy")
    at.page.get_by_label("Axes").fill("PCYX")
    at.page.get_by_role("button", name="Try again").click()
    at.until(lambda: at.seen() == 2)


def test_model_and_range_are_shown_and_changed(server: Server, seat, tmp_path: Path) -> None:
    at = seat(f"{server.url}/#model")
    at.until(lambda: "miniature 1" in at.text("#ensemble"))
    at.until(lambda: "The model's own" in at.text("#rangesource"))
    assert at.page.locator("#networks tr").count() == 7
    with Scan(server) as scan:
        at.page.get_by_role("spinbutton", name="Fields of view").fill("5")
        at.page.get_by_role("button", name="Calibrate from the stream").click()
        at.until(lambda: "Waiting" in at.text("#calibration") or "collected" in at.text("#calibration"))
        scan.go((300, 310, 320))
        at.until(lambda: "3 of 5 fields of view collected" in at.text("#calibration"))
        scan.go((330, 340))
        at.until(lambda: "Calibrated on 5 fields of view" in at.text("#calibration"))
    assert "Calibrated for this session on 5 fields of view" in at.text("#rangesource")
    told = httpx.get(f"{server.url}/v1/normalization").json()
    assert told["source"] == "session"
    assert f"{told['high'][0]:.5g}" in at.text("#ranges")
    at.shoot("model")
    at.page.get_by_role("button", name="Back to the model's range").click()
    at.until(lambda: "The model's own" in at.text("#rangesource"))
    at.page.locator("#calibrationfile").set_input_files(tiff(tmp_path, (300, 900)))
    at.until(lambda: "a posted stack" in at.text("#rangesource"))
    at.page.get_by_label("Change to").select_option("other")
    at.page.get_by_role("button", name="Load and verify").click()
    at.until(lambda: "other 1" in at.text("#ensemble"))
    assert at.text("#changed") == "other is in force."
    at.page.get_by_label("Change to").select_option("miniature")
    at.page.get_by_role("button", name="Load and verify").click()
    at.until(lambda: "miniature 1" in at.text("#ensemble"))
    at.page.get_by_role("button", name="Back to the model's range").click()
    at.until(lambda: "The model's own" in at.text("#rangesource"))


def test_what_the_service_refuses_is_told_where_it_was_asked(server: Server, seat, tmp_path: Path) -> None:
    at = seat(f"{server.url}/#model")
    at.until(lambda: "miniature 1" in at.text("#ensemble"))
    at.page.locator("#calibrationfile").set_input_files(tiff(tmp_path, (300,)))
    at.until(lambda: "Nothing was changed: SRS is 300 wherever it is no outlier" in at.text("#calibration"))
    at.page.get_by_label("Change to").select_option("damaged")
    at.page.get_by_role("button", name="Load and verify").click()
    at.until(lambda: "Nothing was changed: resnet50.onnx" in at.text("#changed"))


def test_a_key_is_asked_for(miniature: Path, seat, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    read, classify = (add_key(file, name, (name,)) for name in ("read", "classify"))
    server = start_server(miniature, tmp_path / "log.txt", "--api-keys", str(file))
    try:
        at = seat(server.url)
        login = at.page.locator("#login")
        at.until(login.is_visible)
        refusals = {"schlüssel €": "cannot be a key", "x" * 40: "not known here", classify: "needs read"}
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
        # Revoked under the open page, which then listens no longer.
        revoke_key(file, "read")
        at.until(lambda: login.is_visible() and "not known here" in at.text("#loginwhy"))
        everything = {"Authorization": f"Bearer {add_key(file, 'all', ('admin',))}"}
        at.until(lambda: live_clients(server, everything) == 0)
    finally:
        stop_server(server)


def test_the_page_comes_whole_from_this_server_and_is_never_stale(server: Server, seat) -> None:
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


def test_without_a_run_log_and_a_stream_the_page_says_so(miniature: Path, seat, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--database-url", "none", "--stream", "")
    try:
        at = seat(server.url)
        at.until(lambda: at.text("#stream") == "No stream")
        at.page.locator("#file").set_input_files(tiff(tmp_path, (900, 60)))
        at.until(lambda: at.seen() == 2 and at.text("#label") == "senescent")
        assert "turned off" in at.text("#health")
        at.page.locator("#live").get_by_role("button", name="Export CSV").click()
        at.until(lambda: "the run log is turned off" in at.text("#toasts"))
        # What this page saw is there all the same, and is gone back to.
        stack = at.page.locator("#series").input_value()
        at.page.get_by_label("Series", exact=True).select_option("uploads")
        at.until(lambda: at.seen() == 2 and "FOV" in at.text("#where"))
        at.page.get_by_label("Series", exact=True).select_option(stack)
        at.until(lambda: at.seen() == 2 and "stack.tif" in at.text("#where"))
    finally:
        stop_server(server)


def test_on_a_tablet_nothing_is_cut_off(server: Server, seat) -> None:
    with Scan(server) as scan:
        scan.go((900, 60))
    for width, height in ((820, 1180), (1024, 768), (390, 844)):
        at = seat(server.url, width=width, height=height)
        at.until(lambda at=at: at.seen() == 2)
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
