"""The report of an experiment, from units that the tests write."""

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
    """Draw figures; most tests do not need them."""
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
    """Write an experiment of one fold whose units have the given scores in each run."""
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


def test_none_is_reported_only_if_no_system_misclassifies_a_fov(tmp_path):
    text = page(experiment(tmp_path, ensemble(RIGHT) | {"scratch": [RIGHT]}))
    assert "None by any system in any run." in text


@pytest.mark.parametrize("unfinished", ["scratch", "hybrid.tiny", "frozen.mobilenet"])
def test_none_is_reported_only_for_finished_systems(tmp_path, unfinished):
    both = {"frozen.tiny": [RIGHT], "frozen.mobilenet": [RIGHT]}
    hybrids = {"hybrid.tiny": [RIGHT], "hybrid.mobilenet": [RIGHT]}
    directory = experiment(tmp_path, ensemble(RIGHT) | both | hybrids | {"scratch": [RIGHT]})
    (directory / "split" / "run_01" / f"{unfinished}.json").unlink()
    text = page(directory)
    assert "None by any finished system in any run so far." in text
    assert "by any system" not in text


def test_a_missing_run_is_not_a_run_without_misclassified_fovs(tmp_path):
    directory = experiment(tmp_path, ensemble(RIGHT) | {"scratch": [wrong(1)]})
    (directory / "split" / "run_01" / "scratch.json").unlink()
    assert "None by any finished system" in page(directory)
    two = tmp_path / "two"
    two.mkdir()
    directory = experiment(
        two,
        {"fully_trained.tiny": [RIGHT, RIGHT]}
        | {"fully_trained.mobilenet": [RIGHT, RIGHT], "scratch": [wrong(1), wrong(1)]},
    )
    (directory / "split" / "run_02" / "fully_trained.tiny.json").unlink()
    assert "None by Fully trained EL in any run so far." in page(directory)


def test_misclassified_fovs_of_other_systems_are_counted(tmp_path):
    text = page(experiment(tmp_path, ensemble(RIGHT) | {"scratch": [wrong(0, 3)]}))
    assert "None by any system" not in text
    assert "None by Fully trained EL in any run." in text
    assert "Misclassified in at least one run by the other systems: CNN from scratch 2." in text


def test_misclassified_fovs_of_single_networks_are_counted(tmp_path):
    below_threshold = tuple(0.45 if n == 1 else score for n, score in enumerate(RIGHT))
    text = page(experiment(tmp_path, ensemble(below_threshold, RIGHT)))
    assert "None by Fully trained EL in any run." in text
    assert "Tiny 1." in text


def test_misclassified_fovs_of_the_best_system_come_before_those_of_others(tmp_path):
    text = page(experiment(tmp_path, ensemble(wrong(2)) | {"scratch": [wrong(0, 3, 5)]}))
    assert "Fully trained EL misclassified 1 of 14 test FOVs" in text
    assert re.search(r"by the other systems: .*CNN from scratch 3", text)


def test_without_misclassified_fovs_the_interval_is_exact(tmp_path):
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
def test_the_interval_of_a_calibration_metric_is_that_of_the_bootstrap(name):
    scores = np.array([wrong(0, 3, 5, 8)])
    found = interval(TRUTH, scores, name, resamples=50)
    assert (found.low, found.high) == bootstrap(np.array(TRUTH), scores, METRICS[name], resamples=50)
    assert not found.exact


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "auc"])
@pytest.mark.parametrize("runs", [1, 3, 9])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 12), (7, 7), (30, 24)])
def test_one_more_misclassified_fov_never_raises_a_bound(name, runs, positives, negatives):
    truth = np.arange(positives + negatives) < positives
    scores = np.stack([np.where(truth, 0.9, 0.1)] * runs)
    order = np.random.default_rng(0).permutation(scores.size)
    before = interval(truth, scores, name, resamples=40)
    for place in order[:16]:
        run, fov = divmod(int(place), len(truth))
        scores[run, fov] = 1 - scores[run, fov]
        after = interval(truth, scores, name, resamples=40)
        # If nothing is predicted positive, the upper bound of the precision is 1.
        none_positive = name == "precision" and not (scores[run] > 0.5).any()
        assert after.low <= before.low + 1e-12
        assert after.high <= before.high + 1e-12 or none_positive
        before = after


@pytest.mark.parametrize("runs", [1, 2, 9])
@pytest.mark.parametrize("count", [4, 14, 54])
@pytest.mark.parametrize("misclassified", [0, 1, 2])
def test_more_runs_on_the_same_fovs_do_not_narrow_the_exact_interval(runs, count, misclassified):
    truth = np.arange(count) % 2 == 0
    scores = np.stack([np.where(truth, 0.9, 0.1)] * runs)
    scores[0, :misclassified] = 1 - scores[0, :misclassified]
    found = interval(truth, scores, "accuracy", resamples=100)
    assert found.low <= exact_interval(count, count)[0] + 1e-12
    assert found.high >= 1 - misclassified / count / runs


@pytest.mark.parametrize(
    ("successes", "count", "expected"),
    # From tables of Clopper and Pearson's intervals; those of 0 and n by 1 - (alpha / 2) ** (1 / n).
    [
        (14, 14, (0.025 ** (1 / 14), 1.0)),
        (0, 14, (0.0, 1 - 0.025 ** (1 / 14))),
        (5, 10, (0.1871, 0.8129)),
        (1, 20, (0.00127, 0.2487)),
        (48, 54, (0.7737, 0.9581)),
    ],
)
def test_exact_intervals_equal_those_in_tables(successes, count, expected):
    assert exact_interval(successes, count) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_the_band_of_roc_curves_is_one_sample_standard_deviation(runs):
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
def test_intervals_of_rates_are_never_empty(name, runs):
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
def test_an_exact_interval_has_the_stated_coverage(runs):
    """Fourteen FOVs, and networks with an accuracy of 0.97: in most cases none is misclassified."""
    rng = np.random.default_rng(0)
    covered = 0
    truth = np.arange(14) % 2 == 0
    for _ in range(200):
        hard = rng.random(14) < (0.03 if runs == 1 else 0.06)  # each run has an accuracy of 0.5 on these
        correct = ~hard | (rng.random((runs, 14)) < (0 if runs == 1 else 0.5))
        found = interval(truth, np.where(correct, truth, ~truth) * 1.0, "accuracy", resamples=60)
        covered += found.low <= 0.97 <= found.high
    assert covered >= 185


def test_synthetic_data_are_labelled_in_the_page_tables_and_figures(tmp_path, figures):
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


def test_no_cell_of_a_table_is_a_formula(tmp_path):
    made = read_experiment(experiment(tmp_path, ensemble(wrong(1))))
    tables = make_tables(made)
    folded = Tables(tables.overall, {"-2+3": tables.overall})
    assert {row["fold"] for row in csv.DictReader(io.StringIO(to_csv(folded)))} == {"all", "'-2+3"}
    renamed = replace(made, predictions=tuple(replace(p, fold="=1+1") for p in made.predictions))
    rows = list(csv.DictReader(io.StringIO(per_run_csv(renamed))))
    assert {row["fold"] for row in rows} == {"'=1+1"}
    assert all(0 <= float(row["accuracy"]) <= 100 for row in rows)


def test_measured_data_are_not_labelled_synthetic(tmp_path, figures):
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
        ("set/synthetic", "set", "synthetic/a.tif", True),
        ("set/synthetic", "set", "synthetic/plate_1/well_2/a.tif", True),
        ("set/1/synthetic", "set", "1/synthetic/a.tif", True),
        ("set/synthetic", "set", "link/a.tif", True),
        ("set/synthetic", "set", "plate_1/a.tif", False),
        ("set/plate_1", "set", "plate_10/a.tif", False),
        ("other", "set", "a.tif", False),
    ],
)
def test_a_data_set_with_synthetic_files_is_synthetic(tmp_path, marked, root, file, synthetic):
    (tmp_path / marked / "plate_1").mkdir(parents=True)
    (tmp_path / marked / SYNTHETIC_NAME).write_text("x")
    (tmp_path / root).mkdir(parents=True, exist_ok=True)
    if file.startswith("link"):
        (tmp_path / root / "link").symlink_to(tmp_path / marked / "plate_1")
    measured = Entry("measured.tif", False, None, None, "0")
    other = Entry(file, True, None, None, "1")
    part = replace(measured, parts=("measured.tif", file))
    for entries in ((measured, other), (part,)):
        data_set = DataSet(tmp_path / root, ("control", "senescent"), ("SRS",), entries)
        assert is_synthetic(data_set) == synthetic


@pytest.mark.parametrize("root", ["set", "set/plate_1", "set/1/2/3/4/5"])
def test_a_folder_in_a_synthetic_one_is_synthetic(tmp_path, root):
    (tmp_path / root).mkdir(parents=True)
    (tmp_path / "set" / SYNTHETIC_NAME).write_text("x")
    assert is_synthetic(tmp_path / root)
    assert not is_synthetic(tmp_path)


@pytest.mark.parametrize("synthetic", [True, False])
def test_predictions_for_synthetic_data_are_labelled(synthetic):
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


def test_figures_have_300_dots_per_inch_and_exist_as_pdf(tmp_path, figures):
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
def test_the_same_report_gives_the_same_bytes(tmp_path, request, drawn):
    if drawn:
        request.getfixturevalue("figures")
    directory = experiment(tmp_path, ensemble(wrong(1, 2)))
    first, again = (write_report(directory, tmp_path / name).parent for name in ("first", "again"))
    files = [path for path in first.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes(), path


def test_units_with_problems_are_listed(tmp_path):
    notes = {"fully_trained.tiny": "the head gives all 44 training examples the same logit"}
    text = page(experiment(tmp_path, ensemble(wrong(1)), notes=notes))
    assert "1 unit had problems, but is included in the results" in text
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
    for content, available in widths:
        assert content <= available
