"""The report as a self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
import yaml

from senoscope_training.experiment.folder import Experiment
from senoscope_training.report.figures import Rendered
from senoscope_training.report.misclassified import FovResult, misclassified_counts
from senoscope_training.report.tables import CALIBRATION, NAMES, RATES, Cell, Row, Tables, format_cell
from senoscope_training.systems import title_of


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure with its caption, or the reason why there is no figure."""

    title: str
    rendered: Rendered | None = None
    reason: str = ""

    @property
    def png(self) -> str:
        """The small PNG in Base64; empty without a figure."""
        return "" if self.rendered is None else base64.b64encode(self.rendered.small).decode()


def make_page(
    experiment: Experiment,
    tables: Tables,
    system: str | None,
    results: Sequence[FovResult],
    svg: dict[str, str],
    cases: Sequence[CaptionedFigure],
    gallery: Sequence[CaptionedFigure],
) -> str:
    """Fill the template; all values except for the SVG figures are escaped.

    ``system`` is reported first, and ``results`` are its results.
    """
    config, provenance = experiment.config, experiment.provenance
    data = provenance["data"]
    best = next((row for row in tables.overall if row.system == system), None)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files(__package__).joinpath("template.html.j2").read_text("utf-8"))
    return template.render(
        name=config.name,
        counts=", ".join(f"{count} {label}" for label, count in data["classes"].items()),
        runs=config.runs,
        weights=provenance["weights"],
        split=f"split by {config.split.by}",
        missing=experiment.missing,
        notes=experiment.notes,
        synthetic=experiment.synthetic,
        exact=any(
            cell.exact
            for rows in (tables.overall, *tables.folds.values())
            for row in rows
            for cell in row.cells.values()
        ),
        misclassified_by_others={
            title_of(name): count
            for name, count in misclassified_counts(experiment).items()
            if count and name != system
        },
        headline=_headline(best),
        headline_title="" if system is None else title_of(system),
        metrics=[NAMES[name] for name in RATES],
        overall=[_row(row) for row in tables.overall],
        folds={fold: [_row(row) for row in rows] for fold, rows in tables.folds.items()},
        svg=svg,
        cases=cases,
        learning={
            title_of(name.removeprefix("learning_")): text
            for name, text in svg.items()
            if name.startswith("learning_")
        },
        classes=config.data.classes,
        misclassified=[result for result in results if result.wrong],
        test_fovs=len(results),
        gallery=gallery,
        by_fov=config.split.by == "fov",
        each_split=config.normalization.fitted_on == "each_split",
        data=data,
        software=provenance["software"],
        host=provenance["host"],
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        split_files={
            fold: {side: sides[side] for side in ("train", "test")}
            for fold, sides in provenance["folds"].items()
        },
    )


def _headline(row: Row | None) -> list[dict[str, str]]:
    cells = {} if row is None else row.cells
    return [
        {"name": NAMES[name], "value": f"{cells[name].mean:.1%}", "interval": _interval(cells[name])}
        for name in ("accuracy", "f1", "auc")
        if name in cells
    ]


def _interval(cell: Cell) -> str:
    return f"{cell.low * 100:.1f} to {cell.high * 100:.1f}{' *' if cell.exact else ''}"


def _row(row: Row) -> dict[str, Any]:
    cells = []
    for name in RATES:
        cell = row.cells.get(name)
        paper = None if name == "auc" else _mean_sd(getattr(row.paper, name))
        interval = "" if cell is None else _interval(cell)
        cells.append({"value": format_cell(cell), "paper": paper, "interval": interval})
    largest = row.cells.get("auc")
    return {
        "title": row.title,
        "cells": cells,
        "max_auc": "-" if largest is None else f"{largest.largest * 100:.1f}",
        "paper_max_auc": "-" if row.paper.max_auc is None else f"{row.paper.max_auc:.1f}",
        **{name: f"{row.cells[name].mean:.3f}" if name in row.cells else "-" for name in CALIBRATION},
        "notes": row.notes,
    }


def _mean_sd(pair: tuple[float, float] | None) -> str:
    if pair is None:
        return "-"
    mean, sd = pair
    return f"{mean:.1f}" if sd != sd else f"{mean:.1f} ± {sd:.1f}"  # noqa: PLR0124 - NaN if none was published
