"""The dock widget: passes events of the service to the layers, and requests of the user to the service."""

from __future__ import annotations

import queue
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy.typing as npt
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from senoscope_client.models.result import Result
from senoscope_client.models.status import StreamStatus
from senoscope_napari.events import (
    EarlierResults,
    EnsembleInfo,
    Event,
    FovLoaded,
    LinkState,
    RequestFailed,
    StackClassified,
)
from senoscope_napari.fov_layers import FovLayers, Placement
from senoscope_napari.gradcam import result_map
from senoscope_napari.link import ServiceLink
from senoscope_napari.panel import CAMERA_FOV, CAMERA_MAP, Panel
from senoscope_napari.selection import SelectedStack, UnsuitableSelection, stack_of
from senoscope_napari.stage import Size, StageMap
from senoscope_napari.texts import stream_text

# Ten updates per second suffice; results in between are added to the map together.
_UPDATE_INTERVAL_MS: Final = 100


class SenoscopeWidget(QWidget):
    """Shows the results of a Senoscope service, and lets it classify layers.

    Parameters
    ----------
    napari_viewer : Viewer
        Passed by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.fov = FovLayers(napari_viewer)
        self.stage = StageMap(napari_viewer, self._choose_on_map)
        self.panel = Panel(self._choose_in_table)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.panel)
        self.ensemble: EnsembleInfo | None = None
        self.shown: tuple[Result, Placement, tuple[int, int]] | None = None
        self._posted: SelectedStack | None = None
        self._classified: StackClassified | None = None
        self._links: list[ServiceLink] = []
        self._docked = False
        self.panel.connect_button.clicked.connect(self._toggle_connection)
        self.panel.url.returnPressed.connect(self._toggle_connection)
        self.panel.network.currentIndexChanged.connect(self._show_gradcam)
        self.panel.camera.currentIndexChanged.connect(self._update_camera)
        self.panel.follow.toggled.connect(self._on_follow_toggled)
        self.panel.classify.clicked.connect(self._classify)
        self._newest: Result | None = None
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.process_events)
        self._timer.start(_UPDATE_INTERVAL_MS)
        # The only signal if napari's window is closed.
        self.destroyed.connect(partial(_close_links, self._links))

    @property
    def link(self) -> ServiceLink | None:
        """The link to the service; None if there is none."""
        return self._links[0] if self._links else None

    @property
    def following(self) -> bool:
        """Whether the newest field of view is shown."""
        return self.panel.follow.isChecked()

    def connect_to(self, url: str, api_key: str | None = None) -> None:
        """Disconnect from the current service, and connect to the one at an address."""
        self.disconnect_link()
        self.panel.url.setText(url)
        try:
            self._links.append(ServiceLink(url, api_key))
        except ValueError as error:
            self.panel.set_link(None)
            self.panel.state.setText(str(error))

    def disconnect_link(self) -> None:
        """Disconnect from the service; the layers are kept."""
        _close_links(self._links)
        self.panel.set_link(None)

    def shut_down(self) -> None:
        """End the thread, close the connections, and disconnect from the viewer."""
        self._timer.stop()
        _close_links(self._links)
        self.stage.close()

    def process_events(self) -> None:
        """Process the events since the last call."""
        link = self.link
        results: list[Result] = []
        while link is not None and link is self.link:
            try:
                event = link.events.get_nowait()
            except queue.Empty:
                break
            if isinstance(event, Result):
                results.append(event)
            else:
                self._add_to_map(results)
                results.clear()
                self._handle_event(event)
        self._add_to_map(results)

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Handle closing of the widget itself."""
        self.shut_down()
        super().closeEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Handle closing of the dock: napari removes the widget from it, and sends no other signal."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.shut_down()

    def _toggle_connection(self) -> None:
        if self._links:
            self.disconnect_link()
        else:
            self.connect_to(self.panel.url.text().strip(), self.panel.key.text().strip() or None)

    def _handle_event(self, event: Event) -> None:
        handlers: dict[type[Any], Callable[[Any], None]] = {
            LinkState: self.panel.set_link,
            EnsembleInfo: self._on_ensemble,
            StreamStatus: lambda status: self.panel.stream.setText(stream_text(status)),
            EarlierResults: self._on_series,
            FovLoaded: self._on_fov_loaded,
            StackClassified: self._on_classified,
            RequestFailed: self._on_failed,
        }
        handlers[type(event)](event)

    def _on_ensemble(self, ensemble: EnsembleInfo) -> None:
        self.ensemble = ensemble
        self.panel.set_networks(ensemble.networks)

    def _on_series(self, earlier: EarlierResults) -> None:
        if earlier.series_uid != self.stage.series:
            self.stage.begin(earlier.series_uid)
        self._add_to_map(list(earlier.results))

    def _add_to_map(self, results: list[Result]) -> None:
        """Add the results of the current series to the map, and show the last one."""
        scanned = [result for result in results if result.source.series_uid == self.stage.series]
        scanned = [result for result in scanned if result.source.kind == "stream"]
        if not scanned:
            return
        self.stage.add(scanned, self._size_um)
        self._newest = scanned[-1]
        if self.following:
            self._request_fov(scanned[-1])

    def _request_fov(self, result: Result) -> None:
        if self.link is not None:
            self.link.request_fov(result)

    def _choose_on_map(self, result: Result) -> None:
        self.panel.follow.setChecked(False)
        self._request_fov(result)

    def _on_follow_toggled(self, following: bool) -> None:
        if following and self._newest is not None:
            self._request_fov(self._newest)

    def _on_fov_loaded(self, loaded: FovLoaded) -> None:
        assert self.ensemble is not None
        result, pixels = loaded.result, loaded.pixels
        shape = pixels.shape[-2:] if pixels is not None else (self.ensemble.height, self.ensemble.width)
        pixel_um = result.source.pixel_size_um or self.ensemble.pixel_size_um
        placement = Placement.on_stage(
            self.stage.centre(result, self._size_um(result)), (shape[0], shape[1]), pixel_um
        )
        if pixels is None:
            self.fov.hide_channels()
            self.panel.set_note("The service no longer holds these pixels; the map is from its run log.")
        else:
            self.fov.show_channels(self._channels(pixels), pixels, placement, result)
            self.panel.set_note("")
        self._show(result, placement, (shape[0], shape[1]))
        self.stage.mark(result)

    def _channels(self, pixels: npt.NDArray[Any]) -> tuple[str, ...]:
        assert self.ensemble is not None
        names = self.ensemble.channels
        return names if len(names) == len(pixels) else tuple(f"channel {c}" for c in range(len(pixels)))

    def _show(self, result: Result, placement: Placement, shape: tuple[int, int]) -> None:
        self.shown = result, placement, shape
        assert self.ensemble is not None
        self.panel.show_result(result, self.ensemble.positive)
        self._show_gradcam()
        self._update_camera()

    def _show_gradcam(self) -> None:
        if self.shown is not None:
            result, placement, shape = self.shown
            self.fov.show_gradcam(result_map(result, self.panel.chosen_network, *shape), placement)

    def _update_camera(self) -> None:
        wanted = self.panel.camera.currentText()
        if wanted == CAMERA_FOV:
            self.fov.bring_into_view()
            return
        self.fov.leave_view()
        if wanted == CAMERA_MAP:
            self.stage.fit_view()

    def _size_um(self, result: Result) -> Size:
        assert self.ensemble is not None
        pixel_um = result.source.pixel_size_um or self.ensemble.pixel_size_um
        return self.ensemble.width * pixel_um, self.ensemble.height * pixel_um

    def _classify(self) -> None:
        if self.link is None or self.ensemble is None:
            return
        chosen = [layer for layer in self.viewer.layers if layer in self.viewer.layers.selection]
        try:
            self._posted = stack_of(chosen, self.ensemble.channels)
        except UnsuitableSelection as error:
            self.panel.posting.setText(str(error))
            return
        self.panel.follow.setChecked(False)  # so that the scan does not replace the result at once
        self.panel.classify.setEnabled(False)
        self.panel.posting.setText(f"Classifying {self._posted.title} …")
        self.link.classify(self._posted.stack)

    def _on_classified(self, classified: StackClassified) -> None:
        assert self._posted is not None
        self._classified = classified
        self.panel.classify.setEnabled(True)
        count = len(classified.results)
        text = f"{self._posted.title}: {count} field{'s' * (count != 1)} of view classified."
        self.panel.posting.setText("\n".join([text, *classified.warnings]))
        self.panel.table.show_results(classified.results)

    def _choose_in_table(self, row: int) -> None:
        if self._classified is None or self._posted is None:
            return
        self.panel.follow.setChecked(False)
        self.panel.set_note("")
        self._show(self._classified.results[row], self._posted.placement, self._posted.shape)
        layer = self._posted.layer
        if layer is not None and layer in self.viewer.layers:
            axis = self.viewer.dims.ndim - layer.ndim
            self.viewer.dims.set_point(axis, layer.data_to_world([row, *[0] * (layer.ndim - 1)])[0])

    def _on_failed(self, failed: RequestFailed) -> None:
        if failed.posting:
            self.panel.classify.setEnabled(True)
            self.panel.posting.setText(f"Not classified: {failed.text}")
        else:
            self.panel.set_note(f"This field of view cannot be shown: {failed.text}")


def _close_links(links: list[ServiceLink], *_: object) -> None:
    while links:
        links.pop().close()
