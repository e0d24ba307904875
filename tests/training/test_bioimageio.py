"""bioimage.io packages: they are valid, and their outputs equal those of the engine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import yaml

from senoscope.engine import Ensemble
from senoscope.engine.manifest import read_manifest
from senoscope_training.bioimageio.texts import description
from support import miniature as mini
from support.commands import CompletedCommand, run_command

pytestmark = pytest.mark.timeout(600)


def export(*arguments: object) -> CompletedCommand:
    return run_command("senoscope-train", "export", *arguments)


def offline(*command: object) -> str:
    """Run a program that must succeed without opening a connection, and return its output."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        # By default ONNX Runtime sends telemetry for each session.
        settings = {
            "HTTP_PROXY": address,
            "HTTPS_PROXY": address,
            "NO_PROXY": "",
            "ORT_DISABLE_TELEMETRY": "1",
        }
        done = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            encoding="utf-8",
            check=False,
            env=os.environ | settings | {"PYTHONIOENCODING": "utf-8"},
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        with pytest.raises(BlockingIOError):
            proxy.accept()
    return done.stdout


def accepted(package: Path, *options: str) -> bool:
    """Return whether ``bioimageio test`` accepts a package."""
    return "passed" in offline(Path(sys.executable).with_name("bioimageio"), "test", package, *options)


def files(package: Path, folder: Path) -> dict:
    """Unpack a package and return its description."""
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8").partition("---")[2])


@pytest.mark.parametrize("channels", [("SRS", "TPEF", "Transmission"), ("SRS", "Transmission light")])
def test_outputs_of_the_package_equal_those_of_the_engine(tmp_path, channels):
    folder = mini.build(tmp_path / "mini.v2", channels=channels, height=42, width=90, name="mini.v2")
    package = tmp_path / "mini.zip"
    done = export("--ensemble", folder, "--bioimageio", package)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(package)
    assert "merging" in done.stderr
    rdf = files(package, tmp_path / "package")
    # Zeros (for which the miniature's maps are zero), values in between, and saturation.
    stack = np.stack([mini.bright(len(channels), 42, 90, level) for level in (0, 300, 900, 5000)])
    stack[1, 0, :20, :30] = 999
    session = ort.InferenceSession(tmp_path / "package" / "ensemble.onnx", providers=["CPUExecutionProvider"])
    probability, networks, gradcam = session.run(None, {"image": stack.astype(np.float32)})
    with Ensemble.load(folder, device="cpu") as ensemble:
        expected = ensemble.predict(stack)
    np.testing.assert_allclose(probability[:, 0], [p.probability for p in expected], rtol=0, atol=1e-5)
    np.testing.assert_allclose(networks, [p.probabilities for p in expected], rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradcam, [p.map() for p in expected], rtol=0, atol=1e-4)
    assert not gradcam[0].any()
    assert gradcam[1].max() > 0.1
    image, config = rdf["inputs"][0], rdf["config"]["senoscope"]
    assert image["axes"][1]["channel_names"] == list(channels)
    assert [(axis["id"], axis["size"]) for axis in image["axes"][2:]] == [("y", 42), ("x", 90)]
    assert [output["id"] for output in rdf["outputs"]] == ["probability", "network_probabilities", "gradcam"]
    assert rdf["outputs"][1]["axes"][1]["channel_names"] == list(mini.NAMES)
    assert config["ensemble_json_sha256"] == read_manifest(folder)[1]
    assert (rdf["name"], config["name"]) == ("Senoscope mini_v2", "mini.v2")
    assert rdf["license"] == "BSD-3-Clause"
    assert rdf["authors"] == [{"name": "The Senoscope developers"}]


@pytest.mark.full
def test_bioimage_io_accepts_it(miniature, tmp_path):
    changed = json.loads((miniature / "ensemble.json").read_text())
    # Values without a field in the format are in the documentation.
    changed |= {
        "licence": "ask us",
        "authors": ["not stated"],
        "version": "the first one",
        "intended_use": "x" * 999,
    }
    changed["cite"] = ["A. et al. 2023, doi:10.3389/fchem.2023.1213981.", "a thesis that has no address"]
    folder = shutil.copytree(miniature, tmp_path / "other")
    (folder / "ensemble.json").write_text(json.dumps(changed))
    command = [sys.executable, "-m", "senoscope_training.cli", "export", "--json-progress"]
    output = offline(*command, "--ensemble", folder, "--bioimageio", tmp_path / "other.zip")
    assert json.loads(output.splitlines()[-1])["stage"] == "done"
    assert accepted(tmp_path / "other.zip")
    rdf = files(tmp_path / "other.zip", tmp_path / "package")
    assert [entry["doi"] for entry in rdf["cite"]] == ["10.3389/fchem.2023.1213981"]
    assert rdf["description"].startswith("Not for science")
    assert len(rdf["description"]) <= 512
    readme = (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    for part in ("ask us", "the first one", "a thesis", "x" * 999, "Not for science", "## Validation"):
        assert part in readme
    changed["for_science"] = True
    (folder / "ensemble.json").write_text(json.dumps(changed))
    assert "science" not in description(read_manifest(folder)[0])


def test_no_package_is_written_if_the_graph_deviates(miniature, tmp_path, monkeypatch):
    from senoscope_training.bioimageio import package

    monkeypatch.setitem(package.TOLERANCES, "gradcam", -1.0)
    done = export("--ensemble", miniature, "--bioimageio", tmp_path / "x.zip")
    assert done.returncode == 1
    assert "gradcam deviates from the engine" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "pass either the folder of an experiment or --ensemble"),
        (("runs/x", "--ensemble", "starter"), 2, "pass either"),
        (("--ensemble", "starter"), 2, "requires --bioimageio FILE.zip"),
        (
            ("--ensemble", "starter", "--bioimageio", "x.zip", "--run", "2"),
            2,
            "--run cannot be combined",
        ),
        (("--ensemble", "nowhere", "--bioimageio", "x.zip"), 1, "no ensemble here"),
        (("runs/nowhere", "--bioimageio", "x.zip"), 1, "runs/nowhere"),
        (("--ensemble", "starter", "--bioimageio", "x.tar"), 1, "must end with .zip"),
        (("--ensemble", "starter", "--bioimageio", "there.zip"), 1, "there.zip already exists"),
        (("--ensemble", "starter", "--bioimageio", "nowhere/x.zip"), 1, "nowhere is not a folder"),
    ],
)
def test_invalid_arguments_are_reported(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("there.zip").write_bytes(b"precious")
    done = export(*arguments, "--models-dir", tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert Path("there.zip").read_bytes() == b"precious"


def test_what_is_not_installed_is_named(tmp_path):
    blocked = (
        "import sys; sys.modules['bioimageio'] = None; "
        "from senoscope_training.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            blocked,
            "export",
            "--ensemble",
            "starter",
            "--bioimageio",
            tmp_path / "x.zip",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert '`pip install "senoscope[bioimageio]"`' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
@pytest.mark.networks
@pytest.mark.timeout(1200)
def test_bioimage_io_accepts_the_seven_networks(starter_ensemble, tmp_path):
    package = tmp_path / "starter.zip"
    package.write_bytes(b"an older one")
    done = export(
        *("--ensemble", starter_ensemble.name, "--models-dir", starter_ensemble.parent),
        *("--bioimageio", package, "--force"),
    )
    assert done.returncode == 0, done.stderr
    # Without a device, the networks would be loaded once per provider.
    assert accepted(package, "--device", "CPUExecutionProvider")
    package.unlink()  # 600 MB
