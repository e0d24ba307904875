"""Building of the starter ensemble: complete or not at all, and never over an existing one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from senoscope.engine.manifest import Manifest
from senoscope_training.schema import SCHEMA_NAME, manifest_schema
from senoscope_training.starter.ensemble import StarterOptions, make_starter
from senoscope_training.starter.fovs import synthetic_fovs

CLONE = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-m", "senoscope_training.cli")


def test_an_existing_ensemble_is_not_replaced(tmp_path):
    (tmp_path / "starter").mkdir()
    with pytest.raises(FileExistsError, match="--force"):
        make_starter(tmp_path, StarterOptions(weights="random"))
    run = subprocess.run(
        [*COMMAND, "starter", "--models-dir", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "--force" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path, number):
    command = [
        *(sys.executable, "-m", "support.train_command"),
        *("starter", "--weights", "random", "--json-progress", "--models-dir", str(tmp_path)),
    ]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SENOSCOPE_TEST_NETWORKS": "tiny,mobilenet",  # a large network takes half a minute to load
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        for line in process.stdout:
            if json.loads(line)["network"]:  # the workers have started
                break
        os.killpg(process.pid, number)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode != 0
        assert list(tmp_path.iterdir()) == []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and group_alive(process.pid):
            time.sleep(0.2)
        assert not group_alive(process.pid), "a worker is still running"


def group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_fovs_are_reproducible_and_balanced_and_differ_from_those_of_a_demonstration():
    from senoscope_client.simulation.synthetic import synthesize

    first, second = (synthetic_fovs(0, 4, 6, 64, 80) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.sha256() == second.sha256() != synthetic_fovs(1, 4, 6, 64, 80).sha256()
    assert first.labels.sum() == 3
    demonstration = synthesize(0, 4, senescent=False, height=64, width=80).pixels
    assert not np.array_equal(first.pixels[0], demonstration)


def test_the_committed_schema_is_current():
    committed = (CLONE / "models" / SCHEMA_NAME).read_text(encoding="utf-8")
    assert committed == manifest_schema(), "run: senoscope-train schema"


@pytest.mark.networks
@pytest.mark.timeout(900)
def test_a_manifest_is_unchanged_by_a_round_trip(starter_ensemble):
    text = (starter_ensemble / "ensemble.json").read_text(encoding="utf-8")
    assert Manifest.model_validate_json(text).to_json() == text
