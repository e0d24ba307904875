"""The report of an experiment, from units that a test has written."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from senoscope_training.config import Config
from senoscope_training.dataset.model import DataSet, Entry
from senoscope_training.dataset.writing import SYNTHETIC_NAME, is_synthetic
from senoscope_training.experiment.folder import (
    Prediction,
    UnitResult,
    Validation,
    read_experiment,
    write_unit,
)
from senoscope_training.metrics import METRICS, bootstrap, exact_interval, interval, mean_sd, roc
from senoscope_training.report.evaluate import Evaluation
from senoscope_training.report.figures import figure_5
from senoscope_training.report.tables import Tables, make_tables, per_run_csv, to_csv
from senoscope_training.report.write import write_report
from support.quick_reports import quick_reports

TRUTH = tuple(n % 2 == 1 for n in range(14))
RIGHT = tuple(0.9 if positive else 0.1 for positive in TRUTH)
FILES = tuple(f"fov_{n}.tif" for n in range(14))


@pytest.fixture
def figures():
    """Figures are drawn; most tests are about other parts of the report."""
    with quick_reports(figures=True):
        yield


@pytest.fixture(autouse=True)
def _quick():
    with quick_reports():
        yield


def wrong(*indices: int) -> tuple[float, ...]:
    return tuple(1 - score if n in indices else score for n, score in enumerate(RIGHT))


def experiment(
    home: Path,
    scores: dict[str, list[tuple[float, ...]]],
    *,
    synthetic: bool = False,
    notes: dict[str, str] | None = None,
) -> Path:
    """An experiment of one fold whose units have these scores in each run."""
    systems = list(dict.fromkeys(unit.partition(".")[0] for unit in scores))
    config = Config.model_validate(
        {
            "name": "made",
            "data": {"path": home / "gone"},
            "input": {"height": 64, "width": 64},
            "systems": systems,
            "networks": ["tiny", "mobilenet"],
            "runs": len(next(iter(scores.values()))),
            "runs_dir": home,
        }
    )
    directory = config.directory
    directory.mkdir()
    (directory / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    provenance = {
        "data": {
            "path": "gone",
            "sha256": "0" * 64,
            "fovs": 30,
            "synthetic": synthetic,
            "classes": {"control": 15, "senescent": 15},
        },
        "folds": {"split": {"train": [], "test": [], "note": ""}},
        "intensity_ranges": {"split": {"low": [0.0] * 3, "high": [1.0] * 3}},
        "weights": "seeded random weights",
        "software": {"senoscope": "0"},
        "host": {"system": "Linux"},
    }
    (directory / "provenance.json").write_text(json.dumps(provenance))
    for unit, runs in scores.items():
        system, _, network = unit.partition(".")
        for number, score in enumerate(runs, 1):
            result = UnitResult(
                system=system,
                network=network,
                files=FILES,
                truth=TRUTH,
                score=score,
                validation=Validation(files=("v",), truth=(True,), score=(0.5,)),
                note=(notes or {}).get(unit, ""),
            )
            write_unit(directory, "split", number, result)
    return directory


def page(directory: Path) -> str:
    return html.unescape(write_report(directory).read_text())


def ensemble(
    score: tuple[float, ...], other: tuple[float, ...] | None = None
) -> dict[str, list[tuple[float, ...]]]:
    return {"fully_trained.tiny": [score], "fully_trained.mobilenet": [other or score]}


def test_none_in_any_run_is_said_only_where_no_system_errs(tmp_path):
    text = page(experiment(tmp_path, ensemble(RIGHT) | {"scratch": [RIGHT]}))
    assert "None, by any system in any run." in text


@pytest.mark.parametrize("unfinished", ["scratch", "hybrid.tiny", "frozen.mobilenet"])
def test_none_is_said_of_finished_systems_alone(tmp_path, unfinished):
    both = {"frozen.tiny": [RIGHT], "frozen.mobilenet": [RIGHT]}
    hybrids = {"hybrid.tiny": [RIGHT], "hybrid.mobilenet": [RIGHT]}
    directory = experiment(tmp_path, ensemble(RIGHT) | both | hybrids | {"scratch": [RIGHT]})
    (directory / "split" / "run_01" / f"{unfinished}.json").unlink()
    text = page(directory)
    assert "None, by any finished system in any run so far." in text
    assert "by any system" not in text


def test_a_run_that_is_missing_is_no_run_without_mistakes(tmp_path):
    directory = experiment(tmp_path, ensemble(RIGHT) | {"scratch": [wrong(1)]})
    (directory / "split" / "run_01" / "scratch.json").unlink()
    assert "None, by any finished system" in page(directory)
    two = tmp_path / "two"
    two.mkdir()
    directory = experiment(
        two,
        {"fully_trained.tiny": [RIGHT, RIGHT]}
        | {"fully_trained.mobilenet": [RIGHT, RIGHT], "scratch": [wrong(1), wrong(1)]},
    )
    (directory / "split" / "run_02" / "fully_trained.tiny.json").unlink()
    assert "None by Fully trained EL, in any run so far." in page(directory)


def test_systems_that_err_are_named_where_the_best_does_not(tmp_path):
    text = page(experiment(tmp_path, ensemble(RIGHT) | {"scratch": [wrong(0, 3)]}))
    assert "None, by any system" not in text
    assert "None by Fully trained EL, in any run." in text
    assert re.search(r"Called wrong in at least one run\s*: CNN from scratch 2\.", text)


def test_networks_that_err_are_named_though_their_ensemble_does_not(tmp_path):
    hesitant = tuple(0.45 if n == 1 else score for n, score in enumerate(RIGHT))
    text = page(experiment(tmp_path, ensemble(hesitant, RIGHT)))
    assert "None by Fully trained EL, in any run." in text
    assert "Tiny 1." in text


def test_what_others_call_wrong_stands_below_the_mistakes_of_the_best(tmp_path):
    text = page(experiment(tmp_path, ensemble(wrong(2)) | {"scratch": [wrong(0, 3, 5)]}))
    assert "1 of 14 test FOVs were called wrong by Fully trained EL" in text
    assert re.search(r"by the others: .*CNN from scratch 3", text)


def test_without_a_mistake_the_interval_is_exact(tmp_path):
    directory = experiment(tmp_path, ensemble(RIGHT))
    text = page(directory)
    # Clopper and Pearson: all of 14, all of 7.
    assert "76.8 to 100.0 *" in text
    assert "59.0 to 100.0 *" in text
    assert "100.0 to 100.0" not in text
    row = next(csv.DictReader((directory / "report" / "table2.csv").open()))
    assert float(row["accuracy_ci95_low"]) == pytest.approx(76.84, abs=0.01)
    assert row["exact_intervals"] == "accuracy precision recall f1 auc"


@pytest.mark.parametrize("name", ["brier", "ece"])
def test_the_interval_of_what_is_no_rate_is_that_of_resampling(name):
    scores = np.array([wrong(0, 3, 5, 8)])
    found = interval(TRUTH, scores, name, resamples=50)
    assert (found.low, found.high) == bootstrap(np.array(TRUTH), scores, METRICS[name], resamples=50)
    assert not found.exact


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "auc"])
@pytest.mark.parametrize("runs", [1, 3, 9])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 12), (7, 7), (30, 24)])
def test_another_mistake_never_raises_a_bound(name, runs, positives, negatives):
    truth = np.arange(positives + negatives) < positives
    scores = np.stack([np.where(truth, 0.9, 0.1)] * runs)
    order = np.random.default_rng(0).permutation(scores.size)
    before = interval(truth, scores, name, resamples=40)
    for place in order[:16]:
        run, fov = divmod(int(place), len(truth))
        scores[run, fov] = 1 - scores[run, fov]
        after = interval(truth, scores, name, resamples=40)
        # Where nothing is called positive any more, a precision may be anything.
        nothing_told = name == "precision" and not (scores[run] > 0.5).any()
        assert after.low <= before.low + 1e-12
        assert after.high <= before.high + 1e-12 or nothing_told
        before = after


@pytest.mark.parametrize("runs", [1, 2, 9])
@pytest.mark.parametrize("count", [4, 14, 54])
@pytest.mark.parametrize("wrong_ones", [0, 1, 2])
def test_runs_on_the_same_fovs_are_no_further_fovs(runs, count, wrong_ones):
    truth = np.arange(count) % 2 == 0
    scores = np.stack([np.where(truth, 0.9, 0.1)] * runs)
    scores[0, :wrong_ones] = 1 - scores[0, :wrong_ones]
    found = interval(truth, scores, "accuracy", resamples=100)
    assert found.low <= exact_interval(count, count)[0] + 1e-12
    assert found.high >= 1 - wrong_ones / count / runs


@pytest.mark.parametrize(
    ("successes", "count", "expected"),
    # Tables of Clopper and Pearson's intervals; 0 and all by 1 - (alpha / 2) ** (1 / n).
    [
        (14, 14, (0.025 ** (1 / 14), 1.0)),
        (0, 14, (0.0, 1 - 0.025 ** (1 / 14))),
        (5, 10, (0.1871, 0.8129)),
        (1, 20, (0.00127, 0.2487)),
        (48, 54, (0.7737, 0.9581)),
    ],
)
def test_exact_intervals_are_those_of_the_tables(successes, count, expected):
    assert exact_interval(successes, count) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_the_band_of_roc_curves_is_one_deviation_of_a_sample(runs):
    truth = np.array(TRUTH)
    scores = np.random.default_rng(0).random((runs, len(truth))) * 0.6 + truth * 0.3
    predictions = [
        Prediction("split", run, "frozen", FILES, truth, score) for run, score in enumerate(scores)
    ]
    (axis,) = figure_5(predictions).axes
    (band,) = axis.collections
    at = 0.5
    rates = [np.interp(at, *roc(truth, score)) for score in scores]
    mean, sd = mean_sd(rates)
    points = band.get_paths()[0].vertices
    drawn = points[np.isclose(points[:, 0], at), 1]
    assert [drawn.min(), drawn.max()] == pytest.approx(np.clip([mean - sd, mean + sd], 0, 1))


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "auc"])
@pytest.mark.parametrize("runs", [1, 3])
def test_no_interval_of_a_rate_has_no_width(name, runs):
    for positives, negatives in ((1, 9), (5, 5), (7, 1)):
        truth = np.arange(positives + negatives) < positives
        for score in (
            truth * 0.8 + 0.1,
            0.9 - truth * 0.8,
            np.full(len(truth), 0.3),
            np.full(len(truth), 0.7),
        ):
            found = interval(truth, np.stack([score] * runs), name, resamples=50)
            assert found.exact
            assert found.high - found.low > 0.05
            value = METRICS[name](truth, score)
            assert found.low <= value + 0.1
            assert found.high >= value - 0.1


@pytest.mark.parametrize("runs", [1, 9])
def test_an_exact_interval_covers_as_often_as_it_says(runs):
    """Fourteen FOVs of networks that are right on 97 of 100: mostly none is wrong."""
    rng = np.random.default_rng(0)
    covered = 0
    truth = np.arange(14) % 2 == 0
    for _ in range(200):
        hard = rng.random(14) < (0.03 if runs == 1 else 0.06)  # which each of several runs gets half right
        right = ~hard | (rng.random((runs, 14)) < (0 if runs == 1 else 0.5))
        found = interval(truth, np.where(right, truth, ~truth) * 1.0, "accuracy", resamples=60)
        covered += found.low <= 0.97 <= found.high
    assert covered >= 185


def test_synthetic_data_are_named_on_the_page_in_tables_and_in_figures(tmp_path, figures):
    directory = experiment(tmp_path, ensemble(wrong(1)), synthetic=True)
    text = page(directory)
    assert '<div class="synthetic">Synthetic data, not for science</div>' in text
    report = directory / "report"
    assert (report / "table2.md").read_text().startswith("**Synthetic data, not for science.**")
    for name in ("table2", "metrics_per_run", "misclassified"):
        rows = list(csv.DictReader((report / f"{name}.csv").open()))
        assert rows
        assert {row["data"] for row in rows} == {"synthetic"}
    for path in (report / "figures").glob("*.svg"):
        assert "synthetic data, not for science" in path.read_text(), path.name


def test_no_cell_of_the_tables_is_a_formula(tmp_path):
    made = read_experiment(experiment(tmp_path, ensemble(wrong(1))))
    tables = make_tables(made)
    folded = Tables(tables.overall, {"-2+3": tables.overall})
    assert {row["fold"] for row in csv.DictReader(io.StringIO(to_csv(folded)))} == {"all", "'-2+3"}
    renamed = replace(made, predictions=tuple(replace(p, fold="=1+1") for p in made.predictions))
    rows = list(csv.DictReader(io.StringIO(per_run_csv(renamed))))
    assert {row["fold"] for row in rows} == {"'=1+1"}
    assert all(0 <= float(row["accuracy"]) <= 100 for row in rows)


def test_measured_data_are_not_called_synthetic(tmp_path, figures):
    directory = experiment(tmp_path, ensemble(wrong(1)))
    assert "ynthetic data" not in page(directory)
    for path in (directory / "report" / "figures").glob("*.svg"):
        assert "synthetic" not in path.read_text()


@pytest.mark.parametrize(
    ("marked", "root", "file", "synthetic"),
    [
        ("set", "set", "a.tif", True),
        ("set", "set", "plate_1/a.tif", True),
        ("set", "set/plate_1", "a.tif", True),
        ("set", "set/1/2/3/4/5", "a.tif", True),
        ("set/drawn", "set", "drawn/a.tif", True),
        ("set/drawn", "set", "drawn/plate_1/well_2/a.tif", True),
        ("set/1/drawn", "set", "1/drawn/a.tif", True),
        ("set/drawn", "set", "link/a.tif", True),
        ("set/drawn", "set", "plate_1/a.tif", False),
        ("set/plate_1", "set", "plate_10/a.tif", False),
        ("other", "set", "a.tif", False),
    ],
)
def test_a_data_set_with_drawn_files_is_synthetic(tmp_path, marked, root, file, synthetic):
    (tmp_path / marked / "plate_1").mkdir(parents=True)
    (tmp_path / marked / SYNTHETIC_NAME).write_text("drawn")
    (tmp_path / root).mkdir(parents=True, exist_ok=True)
    if file.startswith("link"):
        (tmp_path / root / "link").symlink_to(tmp_path / marked / "plate_1")
    measured = Entry("measured.tif", False, None, None, "0")
    drawn = Entry(file, True, None, None, "1")
    part = replace(measured, parts=("measured.tif", file))
    for entries in ((measured, drawn), (part,)):
        data_set = DataSet(tmp_path / root, ("control", "senescent"), ("SRS",), entries)
        assert is_synthetic(data_set) == synthetic


@pytest.mark.parametrize("root", ["set", "set/plate_1", "set/1/2/3/4/5"])
def test_a_folder_below_the_mark_is_synthetic(tmp_path, root):
    (tmp_path / root).mkdir(parents=True)
    (tmp_path / "set" / SYNTHETIC_NAME).write_text("drawn")
    assert is_synthetic(tmp_path / root)
    assert not is_synthetic(tmp_path)


@pytest.mark.parametrize("synthetic", [True, False])
def test_answers_on_synthetic_data_say_so(synthetic):
    done = Evaluation(
        model="made",
        digest="0",
        classes=("control", "senescent"),
        files=("a.tif", "b.tif"),
        truth=np.array([False, True]),
        probability=np.array([0.2, 0.8]),
        networks={"tiny": np.array([0.2, 0.8])},
        metrics={},
        intervals={},
        trained_on=0,
        synthetic=synthetic,
    )
    rows = list(csv.DictReader(io.StringIO(done.to_csv())))
    assert [row["synthetic"] for row in rows] == ["yes" if synthetic else ""] * 2
    assert [row["tiny"] for row in rows] == ["0.2", "0.8"]


def test_figures_are_of_300_dots_per_inch_and_pdf(tmp_path, figures):
    directory = experiment(tmp_path, ensemble(wrong(1)))
    page(directory)
    figures = directory / "report" / "figures"
    names = {path.stem for path in figures.glob("*.svg")}
    assert {"figure_4", "figure_5", "confusion", "calibration"} <= names
    for name in names:
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        raw = (figures / f"{name}.png").read_bytes()
        at = raw.index(b"pHYs") + 4
        per_metre = int.from_bytes(raw[at : at + 4], "big")
        assert per_metre == pytest.approx(300 / 0.0254, abs=1)
    image = cv2.imread(str(figures / "figure_5.png"))
    assert image.shape[1] == pytest.approx(4.6 * 300, abs=2)


@pytest.mark.parametrize("drawn", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_same_report_twice_is_the_same_bytes(tmp_path, request, drawn):
    if drawn:
        request.getfixturevalue("figures")
    directory = experiment(tmp_path, ensemble(wrong(1, 2)))
    first, again = (write_report(directory, tmp_path / name).parent for name in ("first", "again"))
    files = [path for path in first.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes(), path


def test_units_that_went_wrong_are_listed(tmp_path):
    notes = {"fully_trained.tiny": "the head gives all 44 training examples the same logit"}
    text = page(experiment(tmp_path, ensemble(wrong(1)), notes=notes))
    assert "1 unit of work went wrong and counts all the same" in text
    assert "split/run_01/fully_trained.tiny" in text
    assert notes["fully_trained.tiny"] in text


@pytest.mark.system("chromium")
def test_table_2_fits_a_page_of_1280_pixels(tmp_path):
    from support.dashboard_page import chromium

    scores = {
        f"{s}.{n}": [wrong(1), wrong(2), RIGHT]
        for s in ("fully_trained", "frozen", "hybrid")
        for n in ("tiny", "mobilenet")
    }
    scores |= {
        f"two_channels_{pair}.{n}": [wrong(1), wrong(3), wrong(5)]
        for pair in ("tpef_transmission", "srs_tpef")
        for n in ("tiny", "mobilenet")
    }
    path = write_report(experiment(tmp_path, scores | {"scratch": [wrong(1), wrong(4), RIGHT]}))
    with chromium() as browser:
        view = browser.new_page(viewport={"width": 1280, "height": 900})
        view.goto(path.as_uri())
        widths = view.eval_on_selector_all(
            ".scroll", "all => all.map(one => [one.scrollWidth, one.clientWidth])"
        )
        view.screenshot(path=tmp_path / "page.png")
    assert widths
    for content, room in widths:
        assert content <= room
