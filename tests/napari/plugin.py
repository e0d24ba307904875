"""The napari plugin with a real viewer, a real service, and frames from the real publisher."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from senoscope.engine.gradcam import ensemble_map, network_map
from senoscope.results.record import uuid7
from senoscope_client import Client, FramePublisher, Position, Result
from senoscope_client.errors import Unauthorized
from senoscope_client.models.result import Gradcam, ModelRef, Normalization, Source, Timing, Uncertainty
from senoscope_napari.gradcam import result_map
from support import miniature as mini
from support.qt_events import pump
from support.servers import Server, free_addresses, start_server, stop_server
from support.service_double import http_double

pytestmark = [
    pytest.mark.system("Xvfb"),
    # napari and npe2 use deprecated functions of pydantic.
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]
PIXEL_UM = 0.5


def fov(n: int) -> np.ndarray:
    """Return a field of view that the miniature ensemble calls senescent if n is even; all differ."""
    plain = mini.dark() if n % 2 else mini.bright()
    plain[:, 100:140, 100 + n : 160 + n] += 50
    return plain


def result(**facts: Any) -> Result:
    """Return a result with the given fields."""
    return Result(
        **{
            "id": uuid7(),
            "source": Source(kind="upload"),
            "label": "senescent",
            "probability": 0.75,
            "networks": {},
            "uncertainty": Uncertainty(entropy=0.8, mutual_information=0.3, agreement=0.5),
            "normalization": Normalization(source="model", low=[0, 0, 0], high=[1, 1, 1]),
            "model": ModelRef(name="starter", version="1", digest="0" * 64),
            "timing_ms": Timing(queue=1, compute=2, total=3.5),
            "deadline_met": True,
        }
        | facts
    )


class Scope:
    """A microscope that scans rows of four fields of view."""

    def __init__(self, server: Server) -> None:
        self._publisher = FramePublisher(server.frames, "nlo-7")
        assert self._publisher.wait_for_subscriber(60)
        self.uid = self._publisher.start_series("plate 1", planned_frames=12)

    def publish(self, *frames: int) -> None:
        for n in frames:
            row, column = divmod(n, 4)
            place = Position(x=1000 + 150 * column, y=-500 + 125 * row, z=0)
            self._publisher.publish(fov(n), place, pixel_size_um=PIXEL_UM)

    def close(self) -> None:
        self._publisher.close()


@pytest.fixture
def scope(server: Server) -> Iterator[Scope]:
    scope = Scope(server)
    yield scope
    scope.close()


@pytest.fixture
def widget(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("senoscope", "Senoscope live")
    yield widget
    viewer.window.remove_dock_widget(widget)


def shown_frame(widget) -> int | None:
    return widget.shown[0].source.frame if widget.shown else None


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_the_manifest_is_valid() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("senoscope")
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["Senoscope live"]


def test_the_maps_equal_those_of_the_service() -> None:
    rng = np.random.default_rng(3)
    grids = {
        name: rng.random(grid).astype(np.float32) for name, grid in zip(mini.NAMES, mini.GRIDS, strict=True)
    }
    grids["xception"][:] = 0
    probabilities = dict(zip(mini.NAMES, rng.random(7).tolist(), strict=True))
    gradcam = Gradcam(grids={name: grid.tolist() for name, grid in grids.items()})
    one = result(networks=probabilities, gradcam=gradcam)
    expected = ensemble_map(list(grids.values()), np.array(list(probabilities.values())), 250, 300)
    np.testing.assert_allclose(result_map(one, None, 250, 300), expected, atol=2e-6)
    for name in ("resnet50", "xception"):
        np.testing.assert_allclose(
            result_map(one, name, 250, 300), network_map(grids[name], 250, 300), atol=2e-6
        )


def test_a_scan_is_followed(viewer, widget, server: Server, scope: Scope) -> None:
    scope.publish(0, 1)  # before the plugin is connected
    server.wait(lambda status: status["live"]["classified"] == 2)
    widget.connect_to(server.url)
    pump(lambda: shown_frame(widget) == 1)
    scope.publish(2, 3, 4)
    pump(lambda: shown_frame(widget) == 4)
    assert names(viewer) == ["Stage map", "SRS", "TPEF", "Transmission", "Grad-CAM"]

    # The layers: raw counts, in micrometres, at the stage position.
    for c, name in enumerate(("SRS", "TPEF", "Transmission")):
        layer = viewer.layers[name]
        np.testing.assert_array_equal(layer.data, fov(4)[c])
        assert layer.data.dtype == np.uint16
        assert tuple(map(str, layer.units)) == ("micrometer", "micrometer")
    centre = viewer.layers["SRS"].data_to_world([(250 - 1) / 2, (300 - 1) / 2])
    assert centre == pytest.approx((-500 + 125, 1000))
    assert viewer.layers["SRS"].scale == pytest.approx((PIXEL_UM, PIXEL_UM))
    assert viewer.layers["TPEF"].blending == "additive"
    result = widget.shown[0]
    with Client(server.url) as client:
        expected = client.result(result.id, cam="grid")
    np.testing.assert_allclose(viewer.layers["Grad-CAM"].data, result_map(expected, None, 250, 300))
    assert viewer.layers["Grad-CAM"].data.max() > 0.5
    widget.panel.network.setCurrentText("resnet50")
    np.testing.assert_allclose(viewer.layers["Grad-CAM"].data, result_map(expected, "resnet50", 250, 300))

    # The texts.
    assert widget.panel.probability.text() == f"{result.probability:.2f}"
    bright = "#fde725" in widget.panel.probability.styleSheet()
    assert bright == (result.label == "senescent")
    assert widget.panel.label.text() == "senescent"
    assert widget.panel.warning.text() == "miniature ensemble, not for science"
    assert widget.panel.warning.isVisible()
    pump(lambda: "5 of 12 FOVs, none lost" in widget.panel.stream.text())

    # The map, including earlier results; a position that is scanned again shows the newest result.
    stage = viewer.layers["Stage map"]
    assert list(stage.features["frame"]) == [0, 1, 2, 3, 4]
    assert list(stage.features["label"]) == ["senescent", "control"] * 2 + ["senescent"]
    assert stage.features["probability"][4] == result.probability
    np.testing.assert_allclose(stage.data[1].min(axis=0), (-500 - 62.5, 1150 - 75))
    np.testing.assert_allclose(stage.data[1].max(axis=0), (-500 + 62.5, 1150 + 75))
    from napari.utils.colormaps import ensure_colormap

    viridis = ensure_colormap("viridis")
    for n, probability in enumerate(stage.features["probability"]):
        np.testing.assert_allclose(stage.face_color[n], np.ravel(viridis.map(probability)), atol=1e-6)
    assert set(stage.selected_data) == {4}

    # Selecting a rectangle shows its field of view, which the scan does not replace.
    stage.selected_data = {1}
    pump(lambda: shown_frame(widget) == 1)
    np.testing.assert_array_equal(viewer.layers["SRS"].data, fov(1)[0])
    assert widget.panel.label.text() == "control"
    assert not widget.following
    scope.publish(5)
    pump(lambda: len(widget.stage) == 6)
    assert shown_frame(widget) == 1
    click(viewer, (-500.0, 1000.0))
    pump(lambda: shown_frame(widget) == 0)
    widget.panel.follow.setChecked(True)
    pump(lambda: shown_frame(widget) == 5)

    # Deleted layers are created again.
    viewer.layers.clear()
    scope.publish(6)
    pump(lambda: shown_frame(widget) == 6)
    assert list(viewer.layers["Stage map"].features["frame"]) == list(range(7))
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert np.unique(picture.reshape(-1, 4), axis=0).shape[0] > 20, "the layers are drawn"


def click(viewer, position: tuple[float, float]) -> None:
    from napari.utils._test_utils import read_only_mouse_event
    from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks

    for kind, callbacks in (
        ("mouse_press", mouse_press_callbacks),
        ("mouse_release", mouse_release_callbacks),
    ):
        callbacks(viewer, read_only_mouse_event(type=kind, position=position))


def test_layers_are_classified(viewer, widget, server: Server) -> None:
    widget.connect_to(server.url)
    pump(widget.panel.classify.isEnabled)
    panel = widget.panel

    panel.classify.click()
    assert "Nothing to classify" in panel.posting.text()

    stack = viewer.add_image(np.stack([fov(0), fov(1)]), name="stack", scale=(1, 1, 2.0, 2.0))
    panel.classify.click()
    assert not panel.classify.isEnabled(), "disabled until the response is received"
    pump(lambda: panel.table.rowCount() == 2)
    assert [panel.table.item(n, 1).text() for n in range(2)] == ["senescent", "control"]
    assert "2 fields of view" in panel.posting.text()
    assert panel.label.text() == "senescent"
    assert viewer.layers["Grad-CAM"].scale == pytest.approx((2, 2))
    panel.table.selectRow(1)
    assert panel.label.text() == "control"
    assert viewer.dims.current_step[0] == 1

    viewer.layers.selection = {
        viewer.add_image(plane, name=name) for name, plane in zip("abc", fov(3), strict=True)
    }
    panel.classify.click()
    pump(lambda: panel.table.rowCount() == 1)
    assert panel.label.text() == "control"
    with Client(server.url) as client:
        (expected,) = client.classify(fov(3))
    assert widget.shown[0].probability == expected.probability

    for layers, text in (
        ({viewer.add_image(np.zeros((3, 64, 64), np.uint16))}, "250"),
        ({viewer.add_image(np.zeros((5, 250, 300), np.uint16))}, "Not classified"),
        ({viewer.layers["a"], viewer.layers["b"]}, "SRS, TPEF, Transmission from the bottom up"),
        ({viewer.add_points(np.zeros((1, 2)))}, "Nothing to classify"),
    ):
        viewer.layers.selection = layers
        panel.posting.clear()
        panel.classify.click()
        pump(lambda: panel.posting.text() and panel.classify.isEnabled())
        assert text in panel.posting.text()
    assert stack in viewer.layers


def test_problems_of_the_service_are_shown(
    widget, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, state = "senoscope_" + 40 * "k", widget.panel.state
    widget.connect_to("microscope-pc:8750")
    assert "not an http:// or https:// address" in state.text()
    with http_double() as double:
        double.respond("/readyz", {"status": "not_ready", "reason": "warming up"}, 503)
        widget.connect_to(double.url)
        pump(lambda: "is not ready: warming up" in state.text())

    addresses = free_addresses()
    widget.connect_to(addresses.url, key)
    pump(lambda: "Not reachable" in state.text())
    assert "Trying again automatically" in state.text()
    assert not widget.panel.classify.isEnabled()
    server = start_server(miniature, tmp_path / "log.txt", "--api-key", key, wait=False, like=addresses)
    try:
        pump(lambda: "Connected to" in state.text())
        scope = Scope(server)
        scope.publish(0)
        pump(lambda: shown_frame(widget) == 0)
        scope.close()
        shown, set_link = [], widget.panel.set_link
        monkeypatch.setattr(widget.panel, "set_link", lambda one: (shown.append(one.text), set_link(one)))
        server.terminate()
        # The text depends on when the plugin sends its next request.
        expected = (
            "has stopped",
            "Connection lost",
            "is not ready: the service is stopping",
            "Not reachable",
        )
        pump(lambda: any(text in one for one in shown for text in expected))
        assert not widget.panel.classify.isEnabled()
    finally:
        stop_server(server)


def test_a_missing_key_is_shown(widget) -> None:
    with http_double() as double:
        double.respond("/readyz", {"status": "ready"})
        double.respond(
            "/v1/model", Unauthorized("this service requires an API key").problem().model_dump(), 401
        )
        widget.connect_to(double.url)
        pump(lambda: "refuses access: this service requires an API key" in widget.panel.state.text())


def connections_to(url: str) -> int:
    import psutil

    port = int(url.rpartition(":")[2])
    return sum(
        one.raddr.port == port
        for one in psutil.Process().net_connections("tcp")
        if one.raddr and one.status == psutil.CONN_ESTABLISHED
    )


def test_adding_to_the_map_takes_constant_time(viewer, widget) -> None:
    """The time to add a field of view hardly depends on the number of those on the map."""
    from senoscope_napari.events import EarlierResults, EnsembleInfo

    uid = uuid.uuid4()
    widget._on_ensemble(EnsembleInfo("0", ("SRS",), (), "senescent", 250, 300, 0.35))

    def at(n: int) -> Result:
        place = Position(x=n % 40 * 100, y=n // 40 * 80, z=0)
        source = Source(kind="stream", series_uid=uid, frame=n, position_um=place)
        return result(source=source, probability=n / 1000)

    widget._on_series(EarlierResults(uid, tuple(at(n) for n in range(20))))

    def per_fov_s(numbers: range) -> float:
        times_s = []
        for n in numbers:
            start_s = time.thread_time()
            widget.stage.add([at(n)], widget._size_um)
            times_s.append(time.thread_time() - start_s)
        return float(np.median(times_s))

    few = per_fov_s(range(20, 35))
    widget._on_series(EarlierResults(uid, tuple(at(n) for n in range(35, 985))))
    many = per_fov_s(range(985, 1000))
    print(f"adding a field of view: {few * 1e3:.1f} ms of CPU to 20, {many * 1e3:.1f} ms to 1,000")
    assert len(viewer.layers["Stage map"].data) == 1000
    assert many < 3 * few + 0.05, "rebuilding the layer takes a second"


@pytest.mark.parametrize("closed", ["dock", "napari"])
def test_closing_ends_the_thread_and_the_connections(viewer, server: Server, closed: str) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("senoscope", "Senoscope live")
    widget.connect_to(server.url)
    link, state = widget.link, widget.panel.state
    pump(lambda: "Connected to" in state.text())
    assert connections_to(server.url) > 0
    if closed == "dock":
        viewer.window.remove_dock_widget(widget)
    else:
        del widget
        viewer.close()
    pump(lambda: not link.alive)
    assert connections_to(server.url) == 0
