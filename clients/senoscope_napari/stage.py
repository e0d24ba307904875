"""The stage map: a rectangle for each field of view at its stage position, coloured by probability."""

from __future__ import annotations

from collections import defaultdict
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
_EDGE, _EDGE_UM = "#202020", 1.5
# Fields of view without a stage position are placed in separate rows.
_UNPLACED_COLUMNS: Final = 10
Centre = tuple[float, float]
"""(x, y) in micrometres."""
Size = tuple[float, float]
"""(width, height) in micrometres."""


class StageMap:
    """The layer of the current series; a position that is scanned again shows the newest result.

    Parameters
    ----------
    viewer : ViewerModel
    on_chosen : callable
        Called with the result whose rectangle the user clicks or selects.
    """

    def __init__(self, viewer: ViewerModel, on_chosen: Callable[[Result], None]) -> None:
        self._viewer = viewer
        self._on_chosen = on_chosen
        self._layer: Shapes | None = None
        self._colormap = ensure_colormap("viridis")
        self._is_marking = False
        self.series: UUID | None = None
        self._clear()
        viewer.mouse_drag_callbacks.append(self._on_click)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def layer(self) -> Shapes | None:
        """The layer; None before the first field of view, and after the user has deleted it."""
        return self._layer if self._layer in self._viewer.layers else None

    def begin(self, series: UUID) -> None:
        """Clear the map for another series."""
        self.series = series
        self._clear()
        if self.layer is not None:
            self._viewer.layers.remove(self.layer)

    def centre(self, result: Result, size_um: Size) -> Centre:
        """Return the centre of a field of view, (x, y) in micrometres."""
        place = result.source.position_um
        if place is not None:
            return place.x, place.y
        row, column = divmod(len(self._unplaced), _UNPLACED_COLUMNS)
        # With a small distance, so that the rectangles can be distinguished.
        free = (1.05 * column * size_um[0], 1.05 * row * size_um[1])
        return self._unplaced.setdefault(result.id, free)

    def add(self, results: Iterable[Result], size_um: Callable[[Result], Size]) -> None:
        """Add fields of view to the map, in the order in which they were made.

        The layer is updated once for all of them, and existing rectangles are not rebuilt.

        Parameters
        ----------
        results : iterable of Result
        size_um : callable
            Returns the width and height of a field of view in micrometres.
        """
        old_count, changed = len(self), False
        for result in results:
            n = self._tiles.setdefault(_position_key(result), len(self))
            if n == len(self):
                self._results.append(result)
                for name, value in _features(result).items():
                    self._features[name].append(value)
                self._corners.append(_corners(self.centre(result, size_um(result)), size_um(result)))
            elif self._results[n].id < result.id:  # ids sort by time
                self._results[n] = result
                for name, value in _features(result).items():
                    self._features[name][n] = value
                changed = True
        if self.layer is None:
            old_count = 0
        if old_count < len(self) or changed:
            self._draw(old_count, changed)

    def _draw(self, old_count: int, changed: bool) -> None:
        """Add the rectangles after the first ``old_count``; rebuilding the layer would take seconds."""
        layer = self.layer or self._new_layer()
        with layer.block_thumbnail_update():
            if changed:
                layer.face_color = self._colours(self._results[:old_count])
            if old_count < len(self):
                colours = self._colours(self._results[old_count:])
                layer.add(
                    self._corners[old_count:],
                    shape_type="rectangle",
                    edge_color=_EDGE,
                    edge_width=_EDGE_UM,
                    face_color=colours,
                    z_index=0,
                )
        layer.features = pd.DataFrame(self._features)

    def _clear(self) -> None:
        self._tiles: dict[Centre | UUID, int] = {}
        self._results: list[Result] = []
        self._features: defaultdict[str, list[Any]] = defaultdict(list)
        self._corners: list[npt.NDArray[np.float64]] = []
        self._unplaced: dict[UUID, Centre] = {}

    def mark(self, result: Result) -> None:
        """Outline the rectangle of the field of view that is shown."""
        n = self._tiles.get(_position_key(result))
        if self.layer is not None and n is not None:
            self._is_marking = True
            try:
                self.layer.selected_data = {n}
            finally:
                self._is_marking = False

    def fit_view(self) -> None:
        """Bring the whole map into view."""
        if self.layer is not None:
            fit(self._viewer, self.layer)

    def close(self) -> None:
        """Disconnect from the viewer; the layer is kept."""
        if self._on_click in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_click)
        if self._layer is not None:
            self._layer.selected_data.events.items_changed.disconnect(self._on_selection)

    def _colours(self, results: list[Result]) -> npt.NDArray[np.float32]:
        values = np.array([result.probability for result in results], np.float32)
        return np.asarray(self._colormap.map(values), np.float32)

    def _new_layer(self) -> Shapes:
        active = self._viewer.layers.selection.active
        self._layer = self._viewer.add_shapes(None, ndim=2, name=NAME, units=("um", "um"), opacity=1)
        self._layer.selected_data.events.items_changed.connect(self._on_selection)
        self._viewer.layers.move(len(self._viewer.layers) - 1, 0)  # under the field of view
        if active is not None:
            self._viewer.layers.selection.active = active
        return self._layer

    def _on_selection(self, *_: object) -> None:
        if self.layer is not None and not self._is_marking and len(self.layer.selected_data) == 1:
            (n,) = self.layer.selected_data
            if n < len(self):
                self._on_chosen(self._results[n])

    def _on_click(self, _: ViewerModel, event: Any) -> Iterator[None]:
        """Select the clicked rectangle, unless it is a drag or a tool of the active layer is in use."""
        yield
        layer, active = self.layer, self._viewer.layers.selection.active
        if event.type == "mouse_move" or layer is None or not layer.visible:
            return
        if self._viewer.dims.ndisplay != 2 or (active is not None and active.mode != "pan_zoom"):
            return
        n, _vertex = layer.get_value(event.position, world=True) or (None, None)
        if n is not None and n < len(self):
            self._on_chosen(self._results[n])


def _position_key(result: Result) -> Centre | UUID:
    place = result.source.position_um
    return result.id if place is None else (place.x, place.y)


def _corners(centre: Centre, size: Size) -> npt.NDArray[np.float64]:
    (x, y), (width, height) = centre, size
    top, bottom, left, right = y - height / 2, y + height / 2, x - width / 2, x + width / 2
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]])


def _features(result: Result) -> dict[str, float | str | int | None]:
    return {
        "probability": result.probability,
        "label": result.label,
        "entropy": result.uncertainty.entropy,
        "frame": result.source.frame,
        "id": str(result.id),
    }
