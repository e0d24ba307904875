"""The stage map: one rectangle per field of view of a series, at its place, coloured by probability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Shapes
from napari.utils.colormaps import ensure_colormap

from senoscope_client.models.result import Result
from senoscope_napari.camera import fit

NAME: Final = "Stage map"
_COLUMNS: Final = ("probability", "label", "entropy", "frame", "id")
_EDGE, _EDGE_UM = "#202020", 1.5
# Fields of view of which the stream tells no place lie in rows of their own.
_UNPLACED_COLUMNS: Final = 10
Centre = tuple[float, float]
"""(x, y) in micrometres."""
Size = tuple[float, float]
"""(width, height) in micrometres."""


class StageMap:
    """The layer of the series that is scanned now; a place that is scanned again shows the newest.

    Parameters
    ----------
    viewer : ViewerModel
    on_chosen : callable
        Told the result whose rectangle the user clicked, or selected.
    """

    def __init__(self, viewer: ViewerModel, on_chosen: Callable[[Result], None]) -> None:
        self._viewer = viewer
        self._on_chosen = on_chosen
        self._layer: Shapes | None = None
        self._colormap = ensure_colormap("viridis")
        self._marking = False
        self.series: UUID | None = None
        self._empty()
        viewer.mouse_drag_callbacks.append(self._clicked)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def layer(self) -> Shapes | None:
        """None before the first field of view, and once the user has deleted it."""
        return self._layer if self._layer in self._viewer.layers else None

    def begin(self, series: UUID) -> None:
        """Empty the map for another series."""
        self.series = series
        self._empty()
        if self.layer is not None:
            self._viewer.layers.remove(self.layer)

    def centre(self, result: Result, size_um: Size) -> Centre:
        """Where a field of view lies, (x, y) in micrometres."""
        place = result.source.position_um
        if place is not None:
            return place.x, place.y
        row, column = divmod(len(self._unplaced), _UNPLACED_COLUMNS)
        # A little apart, or the rectangles would be one.
        free = (1.05 * column * size_um[0], 1.05 * row * size_um[1])
        return self._unplaced.setdefault(result.id, free)

    def add(self, results: Iterable[Result], size_um: Callable[[Result], Size]) -> None:
        """Put fields of view on the map, in the order of their making.

        All of them together cost one update of the layer, however many are on it already.

        Parameters
        ----------
        size_um : callable
            Gives the width and height of a field of view in micrometres.
        """
        before, changed = len(self), False
        for result in results:
            n = self._tiles.setdefault(_key(result), len(self))
            if n == len(self):
                self._results.append(result)
                for name, value in zip(_COLUMNS, _features(result), strict=True):
                    self._features[name].append(value)
                self._corners.append(_corners(self.centre(result, size_um(result)), size_um(result)))
            elif self._results[n].id < result.id:  # ids sort by time
                self._results[n] = result
                for name, value in zip(_COLUMNS, _features(result), strict=True):
                    self._features[name][n] = value
                changed = True
        if self.layer is None:
            before = 0
        if before < len(self) or changed:
            self._draw(before, changed)

    def _draw(self, before: int, changed: bool) -> None:
        """Add the rectangles that come after ``before``; rebuilding the layer would take seconds."""
        layer = self.layer or self._new_layer()
        with layer.block_thumbnail_update():
            if changed:
                layer.face_color = self._colours(self._results[:before])
            if before < len(self):
                colours = self._colours(self._results[before:])
                layer.add(
                    self._corners[before:],
                    shape_type="rectangle",
                    edge_color=_EDGE,
                    edge_width=_EDGE_UM,
                    face_color=colours,
                    z_index=0,
                )
        layer.features = pd.DataFrame(self._features)

    def _empty(self) -> None:
        self._tiles: dict[Centre | UUID, int] = {}
        self._results: list[Result] = []
        self._features: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._corners: list[npt.NDArray[np.float64]] = []
        self._unplaced: dict[UUID, Centre] = {}

    def mark(self, result: Result) -> None:
        """Outline the rectangle of the field of view that is shown."""
        n = self._tiles.get(_key(result))
        if self.layer is not None and n is not None:
            self._marking = True
            try:
                self.layer.selected_data = {n}
            finally:
                self._marking = False

    def fit_view(self) -> None:
        """Bring the whole map into view."""
        if self.layer is not None:
            fit(self._viewer, self.layer)

    def close(self) -> None:
        """Listen to the viewer no longer; the layer stays."""
        if self._clicked in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._clicked)
        if self._layer is not None:
            self._layer.selected_data.events.items_changed.disconnect(self._selected)

    def _colours(self, results: list[Result]) -> npt.NDArray[np.float32]:
        values = np.array([result.probability for result in results], np.float32)
        return np.asarray(self._colormap.map(values), np.float32)

    def _new_layer(self) -> Shapes:
        active = self._viewer.layers.selection.active
        self._layer = self._viewer.add_shapes(None, ndim=2, name=NAME, units=("um", "um"), opacity=1)
        self._layer.selected_data.events.items_changed.connect(self._selected)
        self._viewer.layers.move(len(self._viewer.layers) - 1, 0)  # under the field of view
        if active is not None:
            self._viewer.layers.selection.active = active
        return self._layer

    def _selected(self, *_: object) -> None:
        if self.layer is not None and not self._marking and len(self.layer.selected_data) == 1:
            (n,) = self.layer.selected_data
            if n < len(self):
                self._on_chosen(self._results[n])

    def _clicked(self, _: ViewerModel, event: Any) -> Iterator[None]:
        """A click chooses what lies under it, unless it begins a drag, or the active layer has a tool out."""
        yield
        layer, active = self.layer, self._viewer.layers.selection.active
        if event.type == "mouse_move" or layer is None or not layer.visible:
            return
        if self._viewer.dims.ndisplay != 2 or (active is not None and active.mode != "pan_zoom"):
            return
        n, _vertex = layer.get_value(event.position, world=True) or (None, None)
        if n is not None and n < len(self):
            self._on_chosen(self._results[n])


def _key(result: Result) -> Centre | UUID:
    place = result.source.position_um
    return result.id if place is None else (place.x, place.y)


def _corners(centre: Centre, size: Size) -> npt.NDArray[np.float64]:
    (x, y), (width, height) = centre, size
    top, bottom, left, right = y - height / 2, y + height / 2, x - width / 2, x + width / 2
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]])


def _features(result: Result) -> tuple[float, str, float, int | None, str]:
    return (
        *(result.probability, result.label, result.uncertainty.entropy),
        *(result.source.frame, str(result.id)),
    )
