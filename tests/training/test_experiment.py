"""A whole experiment, small: trained, killed, resumed, reported, exported, served."""

from __future__ import annotations

import csv
import json
import os
import re
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

from senoscope_client.synthetic import synthesize
from senoscope_training.architectures import ARCHITECTURES
from support.commands import CompletedCommand, run_command
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
    """The command in this process; its workers are processes of their own."""
    return run_command("senoscope-train", *arguments, **environment)


def start(*arguments: object) -> subprocess.Popen[str]:
    """The command as a process that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "support.train_command", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )


@pytest.fixture(scope="module", params=["tiny", pytest.param("mobilenet", marks=pytest.mark.full)])
def network(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def config(network: str) -> dict:
    return CONFIG | {"networks": [network]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, config: dict) -> Path:
    """A folder with a data set and a configuration."""
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
def trained(home: Path) -> Path:
    """The experiment, trained without a break."""
    done = run("run", home / "small.yaml")
    assert done.returncode == 0, done.stderr
    return home / "runs" / "small"


def numbers(experiment: Path) -> dict[str, list[str]]:
    """The lines of the table of metrics, by system."""
    by_system: dict[str, list[str]] = {}
    for line in (experiment / "report" / "metrics_per_run.csv").read_text().splitlines()[1:]:
        by_system.setdefault(next(csv.reader([line]))[2], []).append(line)
    return by_system


def test_every_system_and_network_has_its_row(trained: Path, network: str) -> None:
    rows = list(csv.DictReader((trained / "report" / "table2.csv").open()))
    assert [row["system"] for row in rows] == [
        *("Fully trained EL", "Frozen EL", "Hybrid TL/ML", "CNN from scratch"),
        ARCHITECTURES[network].title,
        "Fully trained EL, SRS + TPEF",
    ]
    assert {row["runs"] for row in rows} == {"2"}
    assert float(next(row for row in rows if row["system"] == "Frozen EL")["auc_mean"]) >= 80


def test_runs_differ_in_split_copies_and_weights(trained: Path, network: str) -> None:
    first, second = (
        json.loads((trained / "split" / f"run_0{run}" / f"frozen.{network}.json").read_text())
        for run in (1, 2)
    )
    assert first["files"] == second["files"]
    assert first["score"] != second["score"]
    assert first["details"]["head_seed"] != second["details"]["head_seed"]


@pytest.mark.parametrize("kills", [(1,), pytest.param((0, 3, 7), marks=pytest.mark.full)])
def test_killed_at_any_moment_it_ends_with_the_same_numbers(
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
    ended, wanted = numbers(home / "runs" / name), numbers(trained)
    assert len(ended) == len(systems) + 1, "the systems, and the network alone"
    assert ended == {system: wanted[system] for system in ended}
    assert not list((home / "runs" / name).rglob("*checkpoint*")), "what only resumption needs is gone"
    assert not list((home / "runs" / name).rglob("*.features.npz"))


def test_another_configuration_or_data_set_is_not_mixed_in(home: Path, trained: Path, config: dict) -> None:
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


def test_the_report_is_one_page_that_needs_nothing(trained: Path) -> None:
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
    assert re.search(r"90\.1 ± 1\.2", page), "the paper's numbers stand beside"


def test_the_same_report_twice_is_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    from senoscope_training.report.write import write_report

    again = write_report(trained, tmp_path / "again").parent
    files = [path for path in (trained / "report").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(trained / "report")).read_bytes(), path


def test_what_is_served_is_what_keras_said(home: Path, trained: Path, tmp_path: Path, network: str) -> None:
    models, package = tmp_path / "models", tmp_path / "small.zip"
    made = run(
        *("export", trained, "--models-dir", models, "--run", 2, "--author", "A lab"),
        *("--bioimageio", package),
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == [str(models / "small"), str(package)]
    with zipfile.ZipFile(package) as archive:
        assert "20 for training, 10 held out for test" in archive.read("README.md").decode()
    unit = json.loads((trained / "split" / "run_02" / f"fully_trained.{network}.json").read_text())
    stack = np.stack([np.load(home / "data" / file) for file in unit["files"]])
    np.save(tmp_path / "stack.npy", stack)
    server = start_server(models / "small", tmp_path / "log.txt")
    try:
        answer = httpx.post(
            f"{server.url}/v1/classify", content=(tmp_path / "stack.npy").read_bytes(), timeout=60
        ).json()
    finally:
        stop_server(server)
    served = [result["probability"] for result in answer["results"]]
    assert served == pytest.approx(unit["score"], abs=1e-4)
    assert [p > 0.5 for p in served] == [p > 0.5 for p in unit["score"]]
    card = (models / "small" / "README.md").read_text()
    assert "A lab" in card
    assert "20 FOVs for training and 10 for test" in card
    out = tmp_path / "answers.csv"
    evaluated = run("evaluate", models / "small", home / "data", "--json", "--out", out)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["trained_on"] == 0
    metrics = json.loads(evaluated.stdout)["metrics"]
    right = np.mean((np.array(unit["score"]) > 0.5) == np.array(unit["truth"]))
    assert metrics["accuracy"] == pytest.approx(right)
    told = {row["file"]: float(row["probability"]) for row in csv.DictReader(out.open())}
    assert [told[file] for file in unit["files"]] == pytest.approx(unit["score"], abs=1e-4)
    manifest = json.loads((models / "small" / "ensemble.json").read_text())
    assert (manifest["for_science"], "not for science" in manifest["intended_use"]) == (False, True)
    folds = json.loads((trained / "provenance.json").read_text())["folds"]
    learned = np.stack([np.load(home / "data" / entry["file"]) for entry in folds["split"]["train"]])
    for c, channel in enumerate(manifest["normalization"]["channels"]):
        above = (learned[:, c] > channel["high"]).mean(axis=(1, 2))
        assert channel["saturated_p99"] == pytest.approx(np.quantile(above, 0.99))
    on_training = run("evaluate", models / "small", home / "data", "--json", "--split", "all")
    assert json.loads(on_training.stdout)["trained_on"] == 20
    assert "trained on 20 of these 30 FOVs" in on_training.stderr


def test_evaluate_tells_its_own_remedies(home: Path, miniature: Path) -> None:
    done = run("evaluate", miniature, home / "data")
    assert done.returncode == 1
    assert "--fit pad" in done.stderr
    assert "data.fit" not in done.stderr


def test_a_back_end_that_is_not_there_is_named(home: Path) -> None:
    done = run("run", home / "small.yaml", KERAS_BACKEND="theano")
    assert done.returncode == 1
    assert "KERAS_BACKEND=theano: use tensorflow, jax, torch" in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rnus": 3}, "rnus: Extra inputs are not permitted"),
        ({"runs": 0}, "runs: Input should be greater than or equal to 1"),
        ({"networks": ["vgg"]}, "networks.0: Value error, 'vgg' is none of inception_v3"),
        ({"input": {"height": 64}, "networks": ["xception"]}, "xception needs 75"),
        ({"data": {"path": "data", "channels": ["A", "B", "C"]}}, "two-channel systems"),
        ({"data": {"path": "data", "channels": ["A"]}, "systems": ["frozen"]}, "take 3 channels"),
        ({"phase1": {"max_epochs": 0}, "runs": 0}, "phase1.max_epochs"),
    ],
)
def test_a_bad_configuration_is_reported_by_its_keys(
    home: Path, config: dict, change: dict, words: str
) -> None:
    path = home / "bad.yaml"
    path.write_text(yaml.safe_dump(config | change))
    done = run("run", path)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
