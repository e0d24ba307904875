"""The dock widget: hands what the service tells to the layers, and what the user wants to the service."""

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
from senoscope_napari.events import (
    Classified,
    Earlier,
    EnsembleFacts,
    Event,
    Failed,
    LinkState,
    Seen,
    StreamWords,
    Told,
)
from senoscope_napari.fov_layers import FovLayers, Placement
from senoscope_napari.gradcam import result_map
from senoscope_napari.link import ServiceLink
from senoscope_napari.panel import CAMERA_FOV, CAMERA_MAP, Panel
from senoscope_napari.selection import CannotPost, Selected, stack_of
from senoscope_napari.stage import Size, StageMap

# Ten pictures a second are more than anybody reads; what comes in between goes onto the map together.
_DRAIN_MS: Final = 100


class SenoscopeWidget(QWidget):
    """Watches a Senoscope service, and asks it about layers.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.
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
        self.facts: EnsembleFacts | None = None
        self.shown: tuple[Result, Placement, tuple[int, int]] | None = None
        self._posted: Selected | None = None
        self._answer: Classified | None = None
        self._links: list[ServiceLink] = []
        self._docked = False
        self.panel.connect_button.clicked.connect(self._connect_or_not)
        self.panel.url.returnPressed.connect(self._connect_or_not)
        self.panel.network.currentIndexChanged.connect(self._show_gradcam)
        self.panel.camera.currentIndexChanged.connect(self._aim)
        self.panel.follow.toggled.connect(self._follow_or_not)
        self.panel.classify.clicked.connect(self._classify)
        self._newest: Result | None = None
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.drain)
        self._timer.start(_DRAIN_MS)
        # When napari's window goes, nobody else tells.
        self.destroyed.connect(partial(_close_links, self._links))

    @property
    def link(self) -> ServiceLink | None:
        """To the service; None while there is none."""
        return self._links[0] if self._links else None

    @property
    def following(self) -> bool:
        """Whether the newest field of view is shown as it comes."""
        return self.panel.follow.isChecked()

    def connect_to(self, url: str, api_key: str | None = None) -> None:
        """Leave the service that there is, and watch the one at an address."""
        self.disconnect_link()
        self.panel.url.setText(url)
        try:
            self._links.append(ServiceLink(url, api_key))
        except ValueError as error:
            self.panel.set_link(None)
            self.panel.state.setText(str(error))

    def disconnect_link(self) -> None:
        """Leave the service; the layers stay."""
        _close_links(self._links)
        self.panel.set_link(None)

    def shut_down(self) -> None:
        """End the thread, close the connections, and let go of the viewer."""
        self._timer.stop()
        _close_links(self._links)
        self.stage.close()

    def drain(self) -> None:
        """Take in what has happened since the last time."""
        link = self.link
        told: list[Result] = []
        while link is not None and link is self.link:
            try:
                event = link.events.get_nowait()
            except queue.Empty:
                break
            if isinstance(event, Told):
                told.append(event.result)
            else:
                self._put_on_map(told)
                told.clear()
                self._take(event)
        self._put_on_map(told)

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Qt: the widget is closed by itself."""
        self.shut_down()
        super().closeEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Qt: when its dock is closed, napari takes the widget out of it, and tells in no other way."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.shut_down()

    def _connect_or_not(self) -> None:
        if self._links:
            self.disconnect_link()
        else:
            self.connect_to(self.panel.url.text().strip(), self.panel.key.text().strip() or None)

    def _take(self, event: Event) -> None:
        handlers: dict[type[Any], Callable[[Any], None]] = {
            LinkState: self.panel.set_link,
            EnsembleFacts: self._on_ensemble,
            StreamWords: lambda told: self.panel.stream.setText(told.words),
            Earlier: self._on_series,
            Seen: self._on_seen,
            Classified: self._on_classified,
            Failed: self._on_failed,
        }
        handlers[type(event)](event)

    def _on_ensemble(self, facts: EnsembleFacts) -> None:
        self.facts = facts
        self.panel.set_networks(facts.networks)

    def _on_series(self, earlier: Earlier) -> None:
        if earlier.series_uid != self.stage.series:
            self.stage.begin(earlier.series_uid)
        self._put_on_map(list(earlier.results))

    def _put_on_map(self, results: list[Result]) -> None:
        """Results of the series that is scanned; the last of them is what the scan shows now."""
        scanned = [result for result in results if result.source.series_uid == self.stage.series]
        scanned = [result for result in scanned if result.source.kind == "stream"]
        if not scanned:
            return
        self.stage.add(scanned, self._size_um)
        self._newest = scanned[-1]
        if self.following:
            self._look(scanned[-1])

    def _look(self, result: Result) -> None:
        if self.link is not None:
            self.link.look(result)

    def _choose_on_map(self, result: Result) -> None:
        self.panel.follow.setChecked(False)
        self._look(result)

    def _follow_or_not(self, following: bool) -> None:
        if following and self._newest is not None:
            self._look(self._newest)

    def _on_seen(self, seen: Seen) -> None:
        assert self.facts is not None
        result, pixels = seen.result, seen.pixels
        shape = pixels.shape[-2:] if pixels is not None else (self.facts.height, self.facts.width)
        pixel_um = result.source.pixel_size_um or self.facts.pixel_size_um
        placement = Placement.on_stage(
            self.stage.centre(result, self._size_um(result)), (shape[0], shape[1]), pixel_um
        )
        if pixels is None:
            self.fov.hide_channels()
            self.panel.set_note("The service no longer remembers these pixels; the map is from its log.")
        else:
            self.fov.show_channels(self._channels(pixels), pixels, placement, result)
            self.panel.set_note("")
        self._show(result, placement, (shape[0], shape[1]))
        self.stage.mark(result)

    def _channels(self, pixels: npt.NDArray[Any]) -> tuple[str, ...]:
        assert self.facts is not None
        known = self.facts.channels
        return known if len(known) == len(pixels) else tuple(f"channel {c}" for c in range(len(pixels)))

    def _show(self, result: Result, placement: Placement, shape: tuple[int, int]) -> None:
        self.shown = result, placement, shape
        assert self.facts is not None
        self.panel.show_result(result, self.facts.positive)
        self._show_gradcam()
        self._aim()

    def _show_gradcam(self) -> None:
        if self.shown is not None:
            result, placement, shape = self.shown
            self.fov.show_gradcam(result_map(result, self.panel.chosen_network, *shape), placement)

    def _aim(self) -> None:
        wanted = self.panel.camera.currentText()
        if wanted == CAMERA_FOV:
            self.fov.bring_into_view()
            return
        self.fov.leave_view()
        if wanted == CAMERA_MAP:
            self.stage.fit_view()

    def _size_um(self, result: Result) -> Size:
        assert self.facts is not None
        pixel_um = result.source.pixel_size_um or self.facts.pixel_size_um
        return self.facts.width * pixel_um, self.facts.height * pixel_um

    def _classify(self) -> None:
        if self.link is None or self.facts is None:
            return
        chosen = [layer for layer in self.viewer.layers if layer in self.viewer.layers.selection]
        try:
            self._posted = stack_of(chosen, self.facts.channels)
        except CannotPost as error:
            self.panel.posting.setText(str(error))
            return
        self.panel.follow.setChecked(False)  # or the scan would take the answer away at once
        self.panel.classify.setEnabled(False)
        self.panel.posting.setText(f"Classifying {self._posted.words} …")
        self.link.classify(self._posted.posted)

    def _on_classified(self, answer: Classified) -> None:
        assert self._posted is not None
        self._answer = answer
        self.panel.classify.setEnabled(True)
        count = len(answer.results)
        words = f"{self._posted.words}: {count} field{'s' * (count != 1)} of view classified."
        self.panel.posting.setText("\n".join([words, *answer.warnings]))
        self.panel.table.show_results(answer.results)

    def _choose_in_table(self, row: int) -> None:
        if self._answer is None or self._posted is None:
            return
        self.panel.follow.setChecked(False)
        self.panel.set_note("")
        self._show(self._answer.results[row], self._posted.placement, self._posted.shape)
        layer = self._posted.layer
        if layer is not None and layer in self.viewer.layers:
            axis = self.viewer.dims.ndim - layer.ndim
            self.viewer.dims.set_point(axis, layer.data_to_world([row, *[0] * (layer.ndim - 1)])[0])

    def _on_failed(self, failed: Failed) -> None:
        if failed.posting:
            self.panel.classify.setEnabled(True)
            self.panel.posting.setText(f"Not classified: {failed.words}")
        else:
            self.panel.set_note(f"This field of view cannot be shown: {failed.words}")


def _close_links(links: list[ServiceLink], *_: object) -> None:
    while links:
        links.pop().close()
