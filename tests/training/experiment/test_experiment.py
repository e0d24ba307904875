"""A small experiment: trained, killed, resumed, reported, exported, served."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from senoscope.engine.manifest import read_manifest
from senoscope_client.simulation.synthetic import synthesize
from senoscope_training.networks.architectures import ARCHITECTURES
from support.commands import CompletedCommand, run_command
from support.quick_reports import quick_reports
from support.servers import start_server, stop_server

pytestmark = pytest.mark.timeout(600)
SIZE = 64
CONFIG = {
    "name": "small",
    "data": {"path": "data"},
    "input": {"height": SIZE, "width": SIZE},
    "split": {"by": "column"},
    "augmentation": {"copies": 1},
    "phase1": {"max_epochs": 10},
    "phase2": {"max_epochs": 2},
    "scratch": {"max_epochs": 5},
    "hybrid": {"c": [1], "gamma": [1], "degree": [2, 3]},
    "systems": ["fully_trained", "frozen", "hybrid", "scratch", "two_channels_srs_tpef"],
    "runs": 2,
    "weights": "random",
}


def run(*arguments: object, **environment: str) -> CompletedCommand:
    """Run the command in this process; its workers are separate processes."""
    return run_command("senoscope-train", *arguments, **environment)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command as a process that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "support.train_command", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


# For tests that do not depend on the network.
tiny_alone = pytest.mark.parametrize("network", ["tiny"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["tiny", pytest.param("mobilenet", marks=pytest.mark.full)])
def network(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def config(network: str) -> dict:
    return CONFIG | {"networks": [network]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, config: dict) -> Path:
    """Write a folder with a data set and a configuration."""
    home = tmp_path_factory.mktemp("experiment")
    (home / "data").mkdir()
    rows = ["file,label,group,split"]
    for n in range(30):
        fov = synthesize(5, n, senescent=bool(n % 2), height=SIZE, width=SIZE)
        np.save(home / "data" / f"fov_{n:02d}.npy", fov.pixels)
        label, split = ("senescent" if n % 2 else "control"), ("train" if n < 20 else "test")
        rows.append(f"fov_{n:02d}.npy,{label},plate {n // 5},{split}")
    (home / "data" / "dataset.csv").write_text("\n".join(rows) + "\n")
    (home / "data" / "SYNTHETIC.txt").write_text("as senoscope-train synthesize marks its data sets")
    (home / "small.yaml").write_text(yaml.safe_dump(config))
    return home


@pytest.fixture(scope="module")
def trained(home: Path, network: str) -> Path:
    """Train the experiment without an interruption; with the tiny network its report has no figures."""
    with quick_reports(figures=network != "tiny"):
        done = run("run", home / "small.yaml")
    assert done.returncode == 0, done.stderr
    return home / "runs" / "small"


def metrics(experiment: Path) -> dict[str, list[str]]:
    """Return the lines of the table of metrics, by system."""
    by_system: dict[str, list[str]] = {}
    for line in (experiment / "report" / "metrics_per_run.csv").read_text().splitlines()[1:]:
        by_system.setdefault(next(csv.reader([line]))[2], []).append(line)
    return by_system


def test_every_system_and_network_has_a_row(trained: Path, network: str) -> None:
    rows = list(csv.DictReader((trained / "report" / "table2.csv").open()))
    assert [row["system"] for row in rows] == [
        *("Fully trained EL", "Frozen EL", "Hybrid TL/ML", "CNN from scratch"),
        ARCHITECTURES[network].title,
        "Fully trained EL, SRS + TPEF",
    ]
    assert {row["runs"] for row in rows} == {"2"}
    assert float(next(row for row in rows if row["system"] == "Frozen EL")["auc_mean"]) >= 80


@tiny_alone
def test_runs_differ_in_split_copies_and_weights(trained: Path, network: str) -> None:
    first, second = (
        json.loads((trained / "split" / f"run_0{run}" / f"frozen.{network}.json").read_text())
        for run in (1, 2)
    )
    assert first["files"] == second["files"]
    assert first["score"] != second["score"]
    assert first["details"]["head_seed"] != second["details"]["head_seed"]


@tiny_alone
def test_validation_predictions_are_stored_with_each_unit(trained: Path) -> None:
    provenance = json.loads((trained / "provenance.json").read_text())
    train = {entry["file"] for entry in provenance["folds"]["split"]["train"]}
    units = sorted((trained / "split").glob("run_*/*.json"))
    assert len(units) == 10
    for path in units:
        unit = json.loads(path.read_text())
        held = unit["validation"]
        assert len(held["files"]) == len(held["truth"]) == len(held["score"])
        assert set(held["files"]) <= train
        assert not set(held["files"]) & set(unit["files"])
        # The hybrid has no validation FOVs; all FOVs of the training side are predicted in cross-validation.
        assert len(held["files"]) == (20 if unit["system"] == "hybrid" else 6)
        assert {"senescent" if int(file[4:6]) % 2 else "control" for file in held["files"]} == {
            "control",
            "senescent",
        }
        assert held["truth"] == [bool(int(file[4:6]) % 2) for file in held["files"]]
        assert all(0 <= score <= 1 for score in held["score"])


@pytest.mark.usefixtures("jobs_here")
def test_validation_predictions_equal_those_of_the_exported_network(
    home: Path, trained: Path, tmp_path: Path, network: str
) -> None:
    from senoscope.engine import Ensemble

    models = tmp_path / "models"
    for system in ("fully_trained", "frozen"):
        made = run(
            "export", trained, "--models-dir", models, "--run", 1, "--system", system, "--name", system
        )
        assert made.returncode == 0, made.stderr
        unit = json.loads((trained / "split" / "run_01" / f"{system}.{network}.json").read_text())
        with Ensemble.load(models / system, device="cpu") as ensemble:
            assert ensemble.warnings == ()
            for part in (unit, unit["validation"]):
                stack = [np.load(home / "data" / file) for file in part["files"]]
                predicted = [ensemble.predict(fov)[0].probability for fov in stack]
                assert predicted == pytest.approx(part["score"], abs=1e-4)


@tiny_alone
@pytest.mark.usefixtures("jobs_here")
def test_a_frozen_ensemble_is_labelled(trained: Path, tmp_path: Path, network: str) -> None:
    models = tmp_path / "models"
    made = run("export", trained, "--models-dir", models, "--system", "frozen", "--run", 2)
    assert made.returncode == 0, made.stderr
    manifest = json.loads((models / "small" / "ensemble.json").read_text())
    assert manifest["version"].endswith("+split.run2.frozen")
    assert manifest["networks"][0]["backbone_weights"]["source"] == "seeded random weights"
    assert manifest["training"]["split"]["system"] == "frozen"
    table = list(csv.DictReader((trained / "report" / "metrics_per_run.csv").open()))
    (row,) = (row for row in table if (row["run"], row["system"]) == ("2", "Frozen EL"))
    assert manifest["metrics"]["accuracy"] == pytest.approx(float(row["accuracy"]) / 100, abs=1e-4)


@tiny_alone
@pytest.mark.usefixtures("jobs_here")
@pytest.mark.parametrize(
    ("system", "collapsed"), [("frozen", "off"), ("fully_trained", "nearly off")], ids=["off", "nearly off"]
)
def test_a_network_with_constant_predictions_is_not_exported(
    trained: Path, tmp_path: Path, network: str, system: str, collapsed: str
) -> None:
    from senoscope.engine import Ensemble

    dead = tmp_path / "dead"
    shutil.copytree(trained, dead)
    path = dead / "split" / "run_01" / f"{system}.{network}.weights.npz"
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept}
    arrays["b2"] = np.float32(0.0464)
    if collapsed == "off":
        arrays |= {"w1": np.zeros_like(arrays["w1"]), "b1": np.full_like(arrays["b1"], -1)}
    else:
        arrays["w2"] = arrays["w2"] * np.float32(1e-6)
    np.savez(path, **arrays)
    models = tmp_path / "models"
    command = ("export", dead, "--models-dir", models, "--run", 1, "--system", system)
    refused = run(*command)
    assert refused.returncode == 1
    # Six validation FOVs, and four for the comparison with Keras.
    assert f"{network} gives all 10 fields of view the same probability (0.511" in refused.stderr
    assert "--force" in refused.stderr
    assert not (models / "small").exists()
    forced = run(*command, "--force")
    assert forced.returncode == 0, forced.stderr
    manifest = json.loads((models / "small" / "ensemble.json").read_text())
    (warning,) = manifest["warnings"]
    assert warning.startswith(f"{network} gives all 10 fields of view the same probability (0.511")
    assert warning in (models / "small" / "README.md").read_text()
    with Ensemble.load(models / "small", device="cpu") as ensemble:
        assert ensemble.warnings == (warning,)


@tiny_alone
@pytest.mark.usefixtures("jobs_here")
@pytest.mark.parametrize(
    ("note", "kept"),
    [
        ("where phase 2 began, the head ranks its training examples no better than chance (AUC 0.50)", ""),
        ("it gives all validation and test FOVs the same score",) * 2,
        (
            "where phase 2 began, the head gives all 44 training examples the same logit; "
            "it gives all validation and test FOVs the same score",
            "it gives all validation and test FOVs the same score",
        ),
    ],
)
def test_a_network_with_a_note_is_not_exported(
    trained: Path, tmp_path: Path, network: str, note: str, kept: str
) -> None:
    noted = tmp_path / "noted"
    shutil.copytree(trained, noted)
    path = noted / "split" / "run_01" / f"fully_trained.{network}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": note}))
    models = tmp_path / "models"
    done = run("export", noted, "--models-dir", models, "--run", 1)
    assert done.returncode == bool(kept), done.stderr
    assert (f"not exported: {network}: {kept}." in done.stderr) == bool(kept)
    if kept:
        done = run("export", noted, "--models-dir", models, "--run", 1, "--force")
        assert done.returncode == 0, done.stderr
    manifest = json.loads((models / "small" / "ensemble.json").read_text())
    assert manifest.get("warnings", []) == ([f"{network}: {kept}"] if kept else [])


@tiny_alone
@pytest.mark.usefixtures("jobs_here")
@pytest.mark.parametrize("case", ["few positives", pytest.param("permuted labels", marks=pytest.mark.full)])
def test_an_experiment_with_poor_results_finishes(
    home: Path, tmp_path: Path, config: dict, case: str, network: str
) -> None:
    """One positive in ten, or random labels."""
    rows = ["file,label,split"]
    drawn = np.arange(40) % 10 == 0 if case == "few positives" else np.arange(40) % 2 == 1
    positive = drawn if case == "few positives" else np.random.default_rng(7).permutation(drawn)
    data = tmp_path / "data"
    data.mkdir()
    for n in range(40):
        fov = synthesize(6, n, senescent=bool(drawn[n]), height=SIZE, width=SIZE)
        np.save(data / f"{n:02d}.npy", fov.pixels)
        label, side = ("senescent" if positive[n] else "control"), ("test" if n < 12 else "train")
        rows.append(f"{n:02d}.npy,{label},{side}")
    (data / "dataset.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "hard.yaml"
    systems = ["fully_trained", "frozen", "hybrid", "scratch"]
    settings = config | {"name": "hard", "systems": systems, "runs": 1, "phase1": {"max_epochs": 3}}
    path.write_text(yaml.safe_dump(settings | {"head": {"attempts": 2}}))
    done = run("run", path)
    assert done.returncode == 0, done.stderr
    table = list(csv.DictReader((tmp_path / "runs" / "hard" / "report" / "table2.csv").open()))
    assert {"Fully trained EL", "Frozen EL", "Hybrid TL/ML", "CNN from scratch"} <= {
        row["system"] for row in table
    }


@tiny_alone
@pytest.mark.usefixtures("jobs_here")
def test_an_ensemble_for_comparison_only_is_not_exported(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    settings = yaml.safe_load((other / "config.yaml").read_text())
    settings["normalization"]["fitted_on"] = "each_split"
    (other / "config.yaml").write_text(yaml.safe_dump(settings))
    models = tmp_path / "models"
    refused = run("export", other, "--models-dir", models)
    assert refused.returncode == 1
    assert "each_split" in refused.stderr
    forced = run("export", other, "--models-dir", models, "--force")
    assert forced.returncode == 0, forced.stderr
    manifest = json.loads((models / "small" / "ensemble.json").read_text())
    assert any("only for comparison" in warning for warning in manifest["warnings"])


@tiny_alone
@pytest.mark.usefixtures("jobs_here")
def test_dead_heads_are_in_the_report(home: Path, tmp_path: Path, config: dict, network: str) -> None:
    """All features, and therefore all predictions, are equal."""
    data = tmp_path / "data"
    data.mkdir()
    rows = ["file,label,split"]
    fov = synthesize(6, 0, senescent=False, height=SIZE, width=SIZE).pixels
    for n in range(16):
        # One different pixel, which does not change features, because identical files would be a fault.
        fov = fov.copy()
        fov[0, 0, n] += 1
        np.save(data / f"{n:02d}.npy", fov)
        rows.append(f"{n:02d}.npy,{'senescent' if n % 2 else 'control'},{'train' if n < 12 else 'test'}")
    (data / "dataset.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "dead.yaml"
    settings = config | {"name": "dead", "systems": ["frozen"], "runs": 1, "augmentation": {"copies": 0}}
    head = {"attempts": 2, "kernel_l1": 10.0, "standardize": "never"}
    path.write_text(
        yaml.safe_dump(settings | {"phase1": {"max_epochs": 40, "learning_rate": 0.1}, "head": head})
    )
    done = run("run", path)
    assert done.returncode == 0, done.stderr
    experiment = tmp_path / "runs" / "dead"
    unit = json.loads((experiment / "split" / "run_01" / f"frozen.{network}.json").read_text())
    assert unit["details"]["head_attempts"] == 2
    assert "the same" in unit["note"]
    page = (experiment / "report" / "report.html").read_text()
    assert f"split/run_01/frozen.{network}" in page
    assert "the same" in page
    refused = run("export", experiment, "--models-dir", tmp_path / "models", "--system", "frozen")
    assert refused.returncode == 1
    assert "not exported" in refused.stderr


@tiny_alone
def test_an_experiment_of_another_release_is_not_resumed(home: Path, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "small"
    shutil.copytree(trained, copy)
    provenance = json.loads((copy / "provenance.json").read_text())
    del provenance["procedure"]
    (copy / "provenance.json").write_text(json.dumps(provenance))
    settings = yaml.safe_load((home / "small.yaml").read_text()) | {"runs_dir": str(tmp_path / "runs")}
    path = home / "elsewhere.yaml"
    path.write_text(yaml.safe_dump(settings))
    done = run("run", path)
    assert done.returncode == 1
    assert "started by another release" in done.stderr


@pytest.mark.usefixtures("quick_report")
@pytest.mark.parametrize(
    ("network", "kills"),
    [
        pytest.param("tiny", (1,), marks=pytest.mark.full),
        pytest.param("mobilenet", (0, 3, 7), marks=pytest.mark.full),
    ],
    indirect=["network"],
    scope="module",
)
def test_a_killed_experiment_is_resumed_with_the_same_results(
    home: Path, trained: Path, config: dict, kills: tuple[int, ...]
) -> None:
    name = f"killed_{len(kills)}"
    path = home / f"{name}.yaml"
    systems = ["fully_trained", "scratch"] if len(kills) == 1 else config["systems"]
    path.write_text(yaml.safe_dump(config | {"name": name, "systems": systems}))
    units = home / "runs" / name / "split"
    for finished in kills:
        process = start("run", path)
        deadline = time.monotonic() + 300
        while len(list(units.glob("*/*.json" if finished else "*/*.features.npz"))) < max(1, finished):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = run("run", path)
    assert done.returncode == 0, done.stderr
    resumed, expected = metrics(home / "runs" / name), metrics(trained)
    assert len(resumed) == len(systems) + 1, "the systems, and the single network"
    assert resumed == {system: expected[system] for system in resumed}
    assert not list((home / "runs" / name).rglob("*checkpoint*")), "checkpoints are deleted"
    assert not list((home / "runs" / name).rglob("*.features.npz"))


@tiny_alone
def test_another_configuration_is_not_resumed(home: Path, trained: Path, config: dict) -> None:
    path = home / "changed.yaml"
    path.write_text(yaml.safe_dump(config | {"phase1": {"max_epochs": 11}}))
    done = run("run", path)
    assert done.returncode == 1
    assert "another configuration: phase1 differ" in done.stderr
    assert "Traceback" not in done.stderr


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe"}
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]


@tiny_alone
def test_the_report_is_self_contained(trained: Path) -> None:
    page = (trained / "report" / "report.html").read_text()
    parser = _References()
    parser.feed(page)
    assert parser.found
    assert all(text.startswith(("data:image/png;base64,", "#")) for text in parser.found)
    for heading in ("Table 2", "Figure 4", "Figure 5", "Figure 6", "Confusion", "Calibration", "Learning"):
        assert heading in page
    for name in ("figure_4", "figure_5", "confusion", "calibration", "learning_fully_trained"):
        assert (trained / "report" / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (trained / "report" / "figures" / f"{name}.svg").read_text()
        assert (trained / "report" / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert re.search(r"90\.1 ± 1\.2", page), "the metrics of the paper"


def assert_measured_on_the_test_fovs(folder: Path, test_fovs: np.ndarray) -> None:
    """Check the reference of an ensemble with one network, and that its variant was judged."""
    manifest, _ = read_manifest(folder)
    assert manifest.reference is not None
    assert manifest.reference.source == "10 test fields of view of data"
    assert np.load(folder / manifest.reference.file).tobytes() == test_fovs.tobytes()
    (network,) = manifest.networks
    assert bool(network.variant("fp16")) != bool(network.rejected_variants)
    assert manifest.reference.agreement.keys() == ({"fp16"} if network.variant("fp16") else set())


def test_the_service_predicts_the_same_as_keras(
    home: Path, trained: Path, tmp_path: Path, network: str
) -> None:
    models, package = tmp_path / "models", tmp_path / "small.zip"
    made = run(
        *("export", trained, "--models-dir", models, "--run", 2, "--author", "A lab"),
        *("--bioimageio", package, "--variants", "fp16"),
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == [str(models / "small"), str(package)]
    with zipfile.ZipFile(package) as archive:
        assert "20 for training, 10 held out for testing" in archive.read("README.md").decode()
    unit = json.loads((trained / "split" / "run_02" / f"fully_trained.{network}.json").read_text())
    stack = np.stack([np.load(home / "data" / file) for file in unit["files"]])
    np.save(tmp_path / "stack.npy", stack)
    server = start_server(models / "small", tmp_path / "log.txt")
    try:
        response = httpx.post(
            f"{server.url}/v1/classify", content=(tmp_path / "stack.npy").read_bytes(), timeout=60
        ).json()
    finally:
        stop_server(server)
    served = [result["probability"] for result in response["results"]]
    assert served == pytest.approx(unit["score"], abs=1e-4)
    assert [p > 0.5 for p in served] == [p > 0.5 for p in unit["score"]]
    assert_measured_on_the_test_fovs(models / "small", stack)
    card = (models / "small" / "README.md").read_text()
    assert "## Lower precisions" in card
    assert "A lab" in card
    assert "20 FOVs for training and 10 for testing" in card
    out = tmp_path / "predictions.csv"
    evaluated = run("evaluate", models / "small", home / "data", "--json", "--out", out)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["trained_on"] == 0
    metrics = json.loads(evaluated.stdout)["metrics"]
    accuracy = np.mean((np.array(unit["score"]) > 0.5) == np.array(unit["truth"]))
    assert metrics["accuracy"] == pytest.approx(accuracy)
    rows = list(csv.DictReader(out.open()))
    assert {row["synthetic"] for row in rows} == {"yes"}
    evaluated_probability = {row["file"]: float(row["probability"]) for row in rows}
    assert [evaluated_probability[file] for file in unit["files"]] == pytest.approx(unit["score"], abs=1e-4)
    manifest = json.loads((models / "small" / "ensemble.json").read_text())
    assert (manifest["for_science"], "not for science" in manifest["intended_use"]) == (False, True)
    # When the ensemble was loaded, its maps were compared with these.
    maps = [rows for v in manifest["test_vectors"] for rows in v["expected"]["gradcams"].values()]
    assert {np.shape(rows) for rows in maps} == {tuple(manifest["networks"][0]["gradcam_grid"])}
    assert np.max(maps) > 0
    folds = json.loads((trained / "provenance.json").read_text())["folds"]
    training = np.stack([np.load(home / "data" / entry["file"]) for entry in folds["split"]["train"]])
    for c, channel in enumerate(manifest["normalization"]["channels"]):
        above = (training[:, c] > channel["high"]).mean(axis=(1, 2))
        assert channel["saturated_p99"] == pytest.approx(np.quantile(above, 0.99))
    on_training = run("evaluate", models / "small", home / "data", "--json", "--split", "all")
    assert json.loads(on_training.stdout)["trained_on"] == 20
    assert "trained on 20 of these 30 FOVs" in on_training.stderr


@tiny_alone
def test_evaluate_reports_its_own_options_as_remedies(home: Path, miniature: Path) -> None:
    done = run("evaluate", miniature, home / "data")
    assert done.returncode == 1
    assert "--fit pad" in done.stderr
    assert "data.fit" not in done.stderr


@tiny_alone
def test_an_unknown_back_end_is_reported(home: Path) -> None:
    done = run("run", home / "small.yaml", KERAS_BACKEND="theano")
    assert done.returncode == 1
    assert "KERAS_BACKEND=theano must be one of tensorflow, jax, torch" in done.stderr


@tiny_alone
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rnus": 3}, "rnus: Extra inputs are not permitted"),
        ({"runs": 0}, "runs: Input should be greater than or equal to 1"),
        ({"networks": ["vgg"]}, "networks.0: Value error, 'vgg' must be one of inception_v3"),
        ({"input": {"height": 64}, "networks": ["xception"]}, "xception needs 75"),
        ({"data": {"path": "data", "channels": ["A", "B", "C"]}}, "two-channel systems"),
        ({"data": {"path": "data", "channels": ["A"]}, "systems": ["frozen"]}, "take 3 channels"),
        ({"data": {"path": "data", "classes": ["a", "b", "c"]}}, "distinguish 2 classes, but there are 3"),
        ({"phase1": {"max_epochs": 0}, "runs": 0}, "phase1.max_epochs"),
    ],
)
def test_an_invalid_configuration_is_reported_with_its_keys(
    home: Path, config: dict, change: dict, message: str
) -> None:
    path = home / "bad.yaml"
    path.write_text(yaml.safe_dump(config | change))
    done = run("run", path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
