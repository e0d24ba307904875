"""The configuration file and its reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from senoscope_training.config import Config, ConfigError, load_config
from senoscope_training.networks.architectures import ARCHITECTURES
from support.tiny_backbone import TINY

ROOT = Path(__file__).parents[2]


def test_defaults_are_those_of_the_paper() -> None:
    config = Config.model_validate({"name": "x", "data": {"path": "x"}})
    assert (config.input.height, config.input.width) == (250, 300)
    assert round(224 * config.split.test_fraction) == 54
    assert round(170 * config.split.validation_fraction) == 43
    assert (config.phase1.learning_rate, config.phase1.patience, config.phase1.min_delta) == (5e-4, 20, 0.005)
    assert (config.phase2.learning_rate, config.phase2.patience, config.phase2.min_delta) == (2e-5, 15, 0)
    assert (config.augmentation.copies, config.runs, config.head.dropout) == (11, 9, 0.8)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lab" / "plates.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"name": "plates", "data": {"path": "../plates"}, "weights_dir": "w"}))
    config = load_config(path)
    assert config.data.path.resolve() == (tmp_path / "plates").resolve()
    assert config.directory == path.resolve().parent / "runs" / "plates"
    assert config.weights_dir == path.resolve().parent / "w"
    assert load_config(path, runs=3, data=tmp_path / "other").data.path == tmp_path / "other"


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: a b\ndata: {path: x, fit: squeeze}\nruns: none\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in ("bad.yaml", "name:", "data.fit:", "runs:"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("[", "not YAML"), ("- a", "must contain keys"), (None, "no such")]
)
def test_an_invalid_file(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_the_example_is_valid() -> None:
    assert load_config(ROOT / "docs" / "examples" / "tcell.yaml").name == "tcell"


def test_channels_are_those_that_the_networks_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "four", replace(TINY, name="four", channels=4))
    document = {"name": "x", "data": {"path": "x", "channels": ["A", "B", "C", "D"]}}
    for accepted in ({"systems": ["frozen"], "networks": ["four"]}, {"systems": ["scratch"]}):
        assert len(Config.model_validate(document | accepted).data.channels) == 4
    with pytest.raises(ValidationError, match="backbones take 3 or 4 channels"):
        Config.model_validate(document | {"systems": ["frozen"], "networks": ["four", "mobilenet"]})
