"""The cells of a synthetic field of view, before detection.

The differences between the classes are those of therapy-induced senescence: senescent cells are fewer,
larger and flatter, contain more and larger lipid droplets (SRS), and their mitochondria form clumps near the
nucleus (TPEF), where lipofuscin fluoresces as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from senoscope_client.simulation.drawing import Image, Vector, blur, smooth_noise, soft_step, splat, spots

# Area of the FOV that `CellAppearance.cells_per_fov` refers to, in pixels.
_FOV_AREA: Final = 250 * 300


@dataclass(frozen=True, slots=True)
class CellAppearance:
    """Appearance of the cells of one class; lengths in pixels, pairs are the ends of a range."""

    cells_per_fov: tuple[int, int]  # in a FOV of 250 x 300
    radius: tuple[float, float]
    nucleus: tuple[float, float]
    roughness: float  # of the outline
    height: float  # optical thickness
    edge: float  # distance over which the thickness rises
    softness: float  # of the outline
    droplets: tuple[int, int]
    droplet_sigma: tuple[float, float]
    droplet_brightness: tuple[float, float]
    droplet_spread: float
    mitochondrion: int  # length, in steps of 0.7 pixels
    clumping: float  # 1: mitochondria fill the cytoplasm; larger: they are close to the nucleus
    mitochondria: float  # filament length per cytoplasm area
    mitochondria_brightness: float
    lipofuscin: tuple[int, int]


CONTROL = CellAppearance(
    cells_per_fov=(6, 9),
    radius=(22, 28),
    nucleus=(11.5, 14),
    roughness=3.5,
    height=1.0,
    edge=9,
    softness=1.1,
    droplets=(5, 16),
    droplet_sigma=(0.8, 1.3),
    droplet_brightness=(0.4, 1.1),
    droplet_spread=9,
    mitochondrion=32,
    clumping=0.8,
    mitochondria=0.2,
    mitochondria_brightness=1.0,
    lipofuscin=(0, 2),
)
SENESCENT = CellAppearance(
    cells_per_fov=(2, 4),
    radius=(46, 62),
    nucleus=(18, 23),
    roughness=9,
    height=0.6,
    edge=16,
    softness=1.8,
    droplets=(45, 100),
    droplet_sigma=(1.3, 2.8),
    droplet_brightness=(1.0, 2.6),
    droplet_spread=11,
    mitochondrion=17,
    clumping=3.2,
    mitochondria=0.16,
    mitochondria_brightness=1.5,
    lipofuscin=(6, 16),
)


@dataclass(frozen=True, slots=True)
class _Cell:
    y: float
    x: float
    radius: float
    elongation: float
    angle: float
    nucleus: float
    nucleus_y: float
    nucleus_x: float
    brightness: float


class Scene:
    """Cells of one class in a field of view.

    Parameters
    ----------
    rng : Generator
        Source of all random numbers.
    height, width : int
        In pixels of 0.35 um.
    appearance : CellAppearance
        Of the class.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, appearance: CellAppearance) -> None:
        self._rng = rng
        self._shape = (height, width)
        self._appearance = appearance
        self._y, self._x = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
        # The outlines are ellipses in a coordinate system that is deformed by these.
        self._bend_y, self._bend_x = (
            np.float32(appearance.roughness) * self._noise(26, 9, np.float32(0.3)) for _ in range(2)
        )
        self._texture = self._noise(14, 5, np.float32(1))
        self._cells = self._place_cells()

    def render(self) -> tuple[Image, Image, Image]:
        """Return SRS and TPEF (cytoplasm is about 1) and the optical path (a cell is about 1)."""
        shape, appearance = self._shape, self._appearance
        inside = np.full(shape, -1e3, np.float32)  # signed distance to the nearest outline, inside positive
        second = inside.copy()
        nuclei, glow = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        for cell in self._cells:
            window = self._window(cell)
            distance, nucleus = self._outline(cell, window)
            nearest = distance > inside[window]
            second[window] = np.where(nearest, inside[window], np.maximum(second[window], distance))
            inside[window] = np.maximum(inside[window], distance)
            nuclei[window] = np.where(nearest, nucleus, nuclei[window])
            glow[window] = np.where(nearest, np.float32(cell.brightness), glow[window])
        body = soft_step(inside, appearance.softness)
        cytoplasm = body * (1 - nuclei)
        seam = np.exp(-(((inside - second) / 2.5) ** 2)) * soft_step(second, 1.0)

        droplets, lipofuscin, nucleoli = (np.zeros(shape, np.float32) for _ in range(3))
        paths: list[tuple[Vector, Vector, Vector]] = []
        for cell in self._cells:
            droplets += self._droplets(cell)
            lipofuscin += self._lipofuscin(cell)
            nucleoli += self._nucleoli(cell)
            paths.append(self._filaments(cell))
        droplets *= cytoplasm
        y, x, weight = (np.concatenate(part) for part in zip(*paths, strict=True))
        network = 1 - np.exp(-1.1 * blur(splat(shape, y, x, weight), 0.9))

        thickness = np.float32(appearance.height) * np.tanh(
            np.clip(inside, 0, None) / np.float32(appearance.edge)
        )
        grain = 1 + np.float32(0.09) * self._texture
        srs = glow * (body * (0.3 + 0.7 * thickness / appearance.height) * (1 - 0.52 * nuclei) * grain)
        srs += 0.22 * nucleoli - 0.3 * seam * body + 1.5 * droplets
        clumps = appearance.mitochondria_brightness * network * cytoplasm
        tpef = glow * (0.16 * cytoplasm * grain + 0.03 * body + clumps) + lipofuscin * cytoplasm
        path = thickness * (1 + 0.05 * self._texture) + 0.1 * nuclei + 0.12 * nucleoli + 0.22 * droplets
        path -= 0.25 * seam * thickness
        return srs.astype(np.float32), tpef.astype(np.float32), path.astype(np.float32)

    def _noise(self, coarse_px: int, fine_px: int, share: np.float32) -> Image:
        coarse = smooth_noise(self._rng, self._shape, coarse_px)
        return coarse + share * smooth_noise(self._rng, self._shape, fine_px)

    def _place_cells(self) -> list[_Cell]:
        """Place cells in islands: most are next to another cell, and no cell covers another."""
        rng, (height, width), appearance = self._rng, self._shape, self._appearance
        share = height * width / _FOV_AREA
        wanted = max(1, round(int(rng.integers(*appearance.cells_per_fov, endpoint=True)) * share))
        cells: list[_Cell] = []
        for _ in range(60 * wanted):
            if len(cells) == wanted:
                break
            radius = rng.uniform(*appearance.radius)
            if cells and rng.random() < 0.75:
                neighbour = cells[int(rng.integers(len(cells)))]
                away = (radius + neighbour.radius) * rng.uniform(0.86, 1.1)
                bearing = rng.uniform(0, 2 * np.pi)
                y, x = neighbour.y + away * np.sin(bearing), neighbour.x + away * np.cos(bearing)
            else:
                y, x = rng.uniform(0, height), rng.uniform(0, width)
            margin = 0.3 * radius
            inside = margin < y < height - margin and margin < x < width - margin
            apart = all(np.hypot(y - c.y, x - c.x) > 0.82 * (radius + c.radius) for c in cells)
            if apart and (inside or not cells):
                cells.append(self._cell(y, x, radius))
        return cells

    def _cell(self, y: float, x: float, radius: float) -> _Cell:
        rng = self._rng
        shift, bearing = rng.uniform(0, 0.22) * radius, rng.uniform(0, 2 * np.pi)
        return _Cell(
            y=y,
            x=x,
            radius=radius,
            elongation=rng.uniform(1.0, 1.25),
            angle=rng.uniform(0, np.pi),
            nucleus=rng.uniform(*self._appearance.nucleus),
            nucleus_y=y + shift * np.sin(bearing),
            nucleus_x=x + shift * np.cos(bearing),
            brightness=rng.uniform(0.85, 1.15),
        )

    def _window(self, cell: _Cell) -> tuple[slice, slice]:
        reach = 1.45 * cell.radius + 3 * self._appearance.roughness
        height, width = self._shape
        rows = slice(max(0, int(cell.y - reach)), max(0, min(height, int(cell.y + reach) + 1)))
        return rows, slice(max(0, int(cell.x - reach)), max(0, min(width, int(cell.x + reach) + 1)))

    def _outline(self, cell: _Cell, window: tuple[slice, slice]) -> tuple[Image, Image]:
        """Return signed distance to the outline, in pixels, and nucleus, 0 to 1, both in the window."""
        y, x = self._y[window[0], None], self._x[None, window[1]]
        bend_y, bend_x = self._bend_y[window], self._bend_x[window]
        stretch = np.float32(np.sqrt(cell.elongation))
        cos, sin = np.float32(np.cos(cell.angle)), np.float32(np.sin(cell.angle))

        def distance(centre_y: float, centre_x: float, radius: float, bent: float) -> Image:
            dy = y - np.float32(centre_y) + np.float32(bent) * bend_y
            dx = x - np.float32(centre_x) + np.float32(bent) * bend_x
            along, across = (cos * dx + sin * dy) / stretch, (cos * dy - sin * dx) * stretch
            return np.float32(radius) - np.sqrt(along * along + across * across)

        nucleus = distance(cell.nucleus_y, cell.nucleus_x, cell.nucleus, 0.2)
        return distance(cell.y, cell.x, cell.radius, 1.0), soft_step(nucleus, 1.1)

    def _droplets(self, cell: _Cell) -> Image:
        """Draw lipid droplets in a few clusters around the nucleus."""
        rng, appearance = self._rng, self._appearance
        count = int(rng.integers(*appearance.droplets, endpoint=True))
        bearing = rng.uniform(0, 2 * np.pi, 3)[rng.integers(0, 3, count)]
        away = cell.nucleus + 0.3 * (cell.radius - cell.nucleus)
        y = cell.nucleus_y + away * np.sin(bearing) + appearance.droplet_spread * rng.standard_normal(count)
        x = cell.nucleus_x + away * np.cos(bearing) + appearance.droplet_spread * rng.standard_normal(count)
        sigma = rng.uniform(*appearance.droplet_sigma, count)
        peaks = spots(self._shape, y, x, sigma, rng.uniform(*appearance.droplet_brightness, count))
        # The signals of overlapping droplets do not add up: the focal volume is filled at most once.
        return np.float32(2) * np.tanh(peaks / 2)

    def _lipofuscin(self, cell: _Cell) -> Image:
        """Draw autofluorescent granules near the nucleus."""
        rng = self._rng
        count = int(rng.integers(*self._appearance.lipofuscin, endpoint=True))
        bearing, away = rng.uniform(0, 2 * np.pi, count), cell.nucleus * rng.uniform(1.1, 1.7, count)
        y, x = cell.nucleus_y + away * np.sin(bearing), cell.nucleus_x + away * np.cos(bearing)
        return spots(self._shape, y, x, rng.uniform(1.0, 1.8, count), rng.uniform(0.6, 1.4, count))

    def _nucleoli(self, cell: _Cell) -> Image:
        rng = self._rng
        count = int(rng.integers(1, 4))
        bearing, away = rng.uniform(0, 2 * np.pi, count), cell.nucleus * rng.uniform(0, 0.55, count)
        y, x = cell.nucleus_y + away * np.sin(bearing), cell.nucleus_x + away * np.cos(bearing)
        return spots(self._shape, y, x, rng.uniform(1.8, 3.0, count), rng.uniform(0.6, 1.2, count))

    def _filaments(self, cell: _Cell) -> tuple[Vector, Vector, Vector]:
        """Generate mitochondria as smooth random walks; return y, x and weight of the points along them."""
        rng, appearance = self._rng, self._appearance
        steps, step = appearance.mitochondrion, 0.7
        area = np.pi * (cell.radius**2 - cell.nucleus**2)
        count = max(1, round(appearance.mitochondria * area / (steps * step)))
        from_nucleus = rng.random(count) ** appearance.clumping
        away = cell.nucleus + 1 + (cell.radius - cell.nucleus) * from_nucleus
        bearing = rng.uniform(0, 2 * np.pi, count)
        turn = 0.22 * rng.standard_normal((count, steps))
        turn[:, 0] = bearing + np.pi / 2 + 0.9 * rng.standard_normal(count)
        heading = np.cumsum(turn, axis=1)
        y = (cell.nucleus_y + away * np.sin(bearing))[:, None] + step * np.cumsum(np.sin(heading), axis=1)
        x = (cell.nucleus_x + away * np.cos(bearing))[:, None] + step * np.cumsum(np.cos(heading), axis=1)
        weight = np.repeat(rng.uniform(0.6, 1.4, count), steps)
        return y.ravel(), x.ravel(), weight
