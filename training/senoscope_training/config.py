"""The configuration of an experiment, with the paper's values as defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from senoscope_training.networks.architectures import ARCHITECTURES
from senoscope_training.networks.settings import (
    AugmentationConfig,
    ConfigModel,
    FrozenPhase,
    HeadConfig,
    HybridConfig,
    Positive,
    ScratchConfig,
    TunedPhase,
)
from senoscope_training.systems import NETWORKS, SYSTEMS, NetworkName, SystemName

Fraction = Annotated[float, Field(gt=0, lt=1)]
_CHANNELS = ("SRS", "TPEF", "Transmission")  # of the paper
_CLASSES = 2  # of the paper's networks, whose single logit is that of the second class

Acceptable = Literal["per-channel", "zero-level", "channel-names", "types"]


class ConfigError(Exception):
    """An invalid configuration; the message contains the file, the key and the allowed values."""


class DataConfig(ConfigModel):
    """The location of the labelled fields of view, and how they are read."""

    path: Path
    """Folder of the data set; a relative path is relative to the configuration file."""
    classes: tuple[str, ...] = ("control", "senescent")
    """Label of the negative class, then of the positive one."""
    channels: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] = _CHANNELS
    """Names of the channels, in the order in which the files contain them. The networks take three; only the
    CNN from scratch takes any number."""
    grey: Literal["refuse", "repeat"] = "refuse"
    """Treatment of images with one channel: refuse them, or repeat them in all channels."""
    fit: Literal["refuse", "pad", "resize"] = "refuse"
    """Treatment of images whose size is not `input`: refuse them, pad them with zeros (or crop them) around
    the centre, or resize them bilinearly."""
    per_channel: tuple[str, ...] = ()
    """For data sets with one file per channel: the part of the file names (or folder names) that identifies
    the channel, in the order of `channels`, for example `[_ch00, _ch01, _ch02]`; or a mapping, for example
    `{SRS: -SRS, TPEF: -TPEF, Transmission: -T}`."""
    accept: tuple[Acceptable, ...] = ()
    """Findings that you have checked and that are not mistakes in your data: `per-channel` (names that look
    like one file per channel), `zero-level` (files whose zero levels are thousands apart), `channel-names`
    (files that name their channels differently), `types` (classes stored as different data types). They
    become warnings instead of faults."""
    pixel_size_um: Positive = 0.35
    """Edge of a pixel in the sample, in micrometres; copied to the exported ensemble."""

    @field_validator("classes")
    @classmethod
    def _require_two(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse other numbers of classes here, the only place where training depends on it being two."""
        if len(classes) != _CLASSES:
            raise ValueError(
                f"networks with one output distinguish {_CLASSES} classes, but there are {len(classes)}: "
                f"{', '.join(classes)}"
            )
        return classes

    @model_validator(mode="before")
    @classmethod
    def _in_order_of_channels(cls, data: Any) -> Any:
        """Convert a mapping of channels to parts of names to a tuple in the order of the channels."""
        if not (isinstance(data, dict) and isinstance(data.get("per_channel"), dict)):
            return data
        named = data["per_channel"]
        channels = data.get("channels", cls.model_fields["channels"].default)
        if set(named) != set(channels):
            raise ValueError(
                f"per_channel has the channels {', '.join(map(str, named))}, but channels is "
                f"{', '.join(map(str, channels))}"
            )
        return data | {"per_channel": tuple(named[channel] for channel in channels)}

    @model_validator(mode="after")
    def _check_per_channel(self) -> DataConfig:
        parts = [part.casefold() for part in self.per_channel]
        if not parts:
            return self
        if len(parts) != len(self.channels):
            raise ValueError(
                f"per_channel has {len(parts)} parts of file names, but there are {len(self.channels)} "
                f"channels: {', '.join(self.channels)}"
            )
        if len(set(parts)) < len(parts) or not all(part.strip("/") for part in parts):
            raise ValueError("per_channel must have a different part of the file names for each channel")
        return self


class InputConfig(ConfigModel):
    """Size of a field of view in the input of the networks."""

    height: Annotated[int, Field(ge=32, le=4096)] = 250
    """Rows. Some networks need at least 75."""
    width: Annotated[int, Field(ge=32, le=4096)] = 300
    """Columns."""


class SplitConfig(ConfigModel):
    """The choice of the fields of view for testing, and for validation (early stopping)."""

    by: Literal["column", "fov", "group", "leave-one-group-out"] = "fov"
    """`column` uses the split in dataset.csv; `fov` draws single FOVs, as in the paper; `group` draws whole
    groups (culture plates, donors), so that no group is in both training and test; `leave-one-group-out`
    tests on each group in turn. FOVs of one plate are similar, so the results of a split by FOV are too
    good."""
    test_fraction: Fraction = 54 / 224
    """Fraction of the FOVs (or groups) of each class that are used for testing."""
    validation_fraction: Fraction = 43 / 170
    """Fraction of the training FOVs (or groups) of each class that are used for validation; drawn again for
    each network and run."""
    groups: tuple[str, ...] = ()
    """With `leave-one-group-out`: the groups to test on; all groups if empty."""


class NormalizationConfig(ConfigModel):
    """The intensity range that is mapped to 0..255."""

    k_iqr: Positive = 3.5
    """Pixels further from the median than this many interquartile ranges are outliers."""
    fitted_on: Literal["training", "each_split"] = "training"
    """`each_split` scales training, validation and test FOVs each by their own statistics, as the authors'
    code does: raw counts are augmented, with zeros in the corners, and the range is fitted on FOVs and
    copies together. Use it only for comparison with the paper: a single new FOV has no such statistics."""


class Config(ConfigModel):
    """An experiment: its data, procedure, systems and runs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Name of the experiment and of its folder in `runs_dir`."""
    data: DataConfig
    input: InputConfig = InputConfig()
    split: SplitConfig = SplitConfig()
    normalization: NormalizationConfig = NormalizationConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    head: HeadConfig = HeadConfig()
    phase1: FrozenPhase = FrozenPhase()
    phase2: TunedPhase = TunedPhase()
    hybrid: HybridConfig = HybridConfig()
    scratch: ScratchConfig = ScratchConfig()
    systems: Annotated[tuple[SystemName, ...], Field(min_length=1)] = SYSTEMS
    """Systems to train; results of the single networks are reported with `fully_trained`."""
    networks: Annotated[tuple[NetworkName, ...], Field(min_length=1)] = NETWORKS
    """Networks of the ensembles and of the hybrid."""
    runs: Annotated[int, Field(ge=1, le=1000)] = 9
    """Repetitions, each with different validation splits, augmentations and initial weights."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of all random numbers."""
    weights: Literal["auto", "imagenet", "random"] = "auto"
    """Initial weights of the backbones: Keras' ImageNet weights, random weights from the seed, or (`auto`)
    ImageNet weights if the files of all networks are present, and random weights otherwise."""
    weights_dir: Path | None = None
    """Folder with Keras' weight files; a relative path is relative to the configuration file."""
    keep_weights: Literal["all", "none"] = "all"
    """Whether to keep the fine-tuned weights of each run (600 MB for all seven networks), which an export
    needs."""
    runs_dir: Path = Path("runs")
    """Folder of the experiments; a relative path is relative to the configuration file."""

    @field_validator("systems", "networks")
    @classmethod
    def _no_repeats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"names must not be repeated: {', '.join(names)}")
        return names

    @model_validator(mode="after")
    def _check_consistency(self) -> Config:
        channels = self.data.channels
        has_ablation = any(system.startswith("two_channels") for system in self.systems)
        if has_ablation and channels != _CHANNELS:
            raise ValueError(
                "the two-channel systems each omit one of SRS, TPEF and Transmission, but the data set has "
                f"{', '.join(channels)}: remove them from `systems`"
            )
        taken = {ARCHITECTURES[name].channels for name in self.networks}
        if taken != {len(channels)} and set(self.systems) != {"scratch"}:
            raise ValueError(
                f"the backbones take {' or '.join(map(str, sorted(taken)))} channels, but data.channels has "
                f"{len(channels)}; with one detector, give it three names (NADH, NADH 2, NADH 3) and set "
                "data.grey: repeat"
            )
        if self.split.groups and self.split.by != "leave-one-group-out":
            raise ValueError("split.groups requires split.by: leave-one-group-out")
        smallest = min(self.input.height, self.input.width)
        needs = {name: ARCHITECTURES[name].smallest_edge for name in self.networks}
        larger = [f"{name} needs {edge}" for name, edge in sorted(needs.items()) if edge > smallest]
        if larger and set(self.systems) != {"scratch"}:
            raise ValueError(f"{self.input.height}x{self.input.width}: {', '.join(larger)}")
        if "scratch" in self.systems and smallest < self.scratch.smallest_edge():
            raise ValueError(
                f"{self.input.height}x{self.input.width}: the CNN from scratch with "
                f"{len(self.scratch.filters)} convolutions needs {self.scratch.smallest_edge()}"
            )
        return self

    @property
    def directory(self) -> Path:
        """Folder of the experiment."""
        return self.runs_dir / self.name


def load_config(path: Path, *, runs: int | None = None, data: Path | None = None) -> Config:
    """Read a configuration file; ``runs`` and the folder ``data`` of the data set override it.

    Raises
    ------
    ConfigError
        If the file is missing or invalid; the message contains every fault.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must contain keys such as `name:` and `data:`")
    if runs is not None:
        document["runs"] = runs
    if data is not None:
        given = document.get("data")
        document["data"] = (given if isinstance(given, dict) else {}) | {"path": str(data.resolve())}
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(str(part) for part in fault['loc']) or 'config'}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        raise ConfigError(f"{path}:\n{faults}") from error
    base = path.resolve().parent
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"path": base / config.data.path}),
            "runs_dir": base / config.runs_dir,
            "weights_dir": None if config.weights_dir is None else base / config.weights_dir,
        }
    )
