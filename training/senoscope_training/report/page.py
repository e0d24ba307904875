"""The report as one self-contained page."""

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
from senoscope_training.report.mistakes import Judged, erring
from senoscope_training.report.tables import CALIBRATION, NAMES, Cell, Row, Tables, shown
from senoscope_training.systems import title_of

_COLUMNS = ("accuracy", "precision", "recall", "f1", "auc")


@dataclass(frozen=True)
class Picture:
    """A picture with its caption; without ``rendered``, ``why`` says what there is instead."""

    title: str
    rendered: Rendered | None = None
    why: str = ""

    def shown(self) -> dict[str, str]:
        """For the template."""
        png = "" if self.rendered is None else base64.b64encode(self.rendered.small).decode()
        return {"title": self.title, "png": png, "why": self.why}


def make_page(
    experiment: Experiment,
    tables: Tables,
    system: str | None,
    judged: Sequence[Judged],
    svg: dict[str, str],
    cases: Sequence[Picture],
    gallery: Sequence[Picture],
) -> str:
    """Fill the template; whatever came from outside is escaped, but for our own SVG.

    Parameters
    ----------
    system : str or None
        The one to put into the headline.
    svg : dict of str to str
        Figures by name.
    """
    config, provenance = experiment.config, experiment.provenance
    data = provenance["data"]
    negative, positive = config.data.classes
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
        erring=[
            {"title": title_of(name), "count": count}
            for name, count in erring(experiment).items()
            if count and name != system
        ],
        headline=_headline(best),
        headline_title="" if system is None else title_of(system),
        metrics=[NAMES[name] for name in _COLUMNS],
        overall=[_row(row) for row in tables.overall],
        folds={fold: [_row(row) for row in rows] for fold, rows in tables.folds.items()},
        svg=svg,
        cases=[case.shown() for case in cases],
        learning={
            title_of(name.removeprefix("learning_")): text
            for name, text in svg.items()
            if name.startswith("learning_")
        },
        mistakes=[
            {
                "file": j.file,
                "truth": positive if j.positive else negative,
                "wrong": j.wrong,
                "runs": j.runs,
                "score": f"{j.score:.3f}",
            }
            for j in judged
            if j.wrong
        ],
        judged=len(judged),
        gallery=[picture.shown() for picture in gallery],
        test_words=f"{len(judged)} test FOVs are few." if judged else "",
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
    if row is None:
        return []
    shown_first = [(name, row.cells[name]) for name in ("accuracy", "f1", "auc") if name in row.cells]
    return [
        {"name": NAMES[name], "value": f"{cell.mean:.1%}", "interval": _interval(cell)}
        for name, cell in shown_first
    ]


def _interval(cell: Cell) -> str:
    return f"{cell.low * 100:.1f} to {cell.high * 100:.1f}{' *' if cell.exact else ''}"


def _row(row: Row) -> dict[str, Any]:
    cells = []
    for name in _COLUMNS:
        cell = row.cells.get(name)
        theirs = None if name == "auc" else _theirs(getattr(row.paper, name))
        interval = "" if cell is None else _interval(cell)
        cells.append({"ours": shown(cell), "paper": theirs, "interval": interval})
    largest = row.cells.get("auc")
    return {
        "title": row.title,
        "cells": cells,
        "max_auc": "-" if largest is None else f"{largest.largest * 100:.1f}",
        "paper_max_auc": "-" if row.paper.max_auc is None else f"{row.paper.max_auc:.1f}",
        **{name: f"{row.cells[name].mean:.3f}" if name in row.cells else "-" for name in CALIBRATION},
        "notes": row.notes,
    }


def _theirs(pair: tuple[float, float] | None) -> str:
    if pair is None:
        return "-"
    mean, sd = pair
    return f"{mean:.1f}" if sd != sd else f"{mean:.1f} ± {sd:.1f}"  # noqa: PLR0124 - NaN: none was published
