"""The configuration of an experiment: one typed model, each default the paper's."""

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


Acceptable = Literal["per-channel", "zero-level", "channel-names", "types"]


class ConfigError(Exception):
    """A configuration that cannot be used; the message names the file, the key and what is allowed."""


class DataConfig(ConfigModel):
    """Where the labelled fields of view are, and how they are read."""

    path: Path
    """Folder of the data set; a relative path counts from the configuration file."""
    classes: tuple[str, str] = ("control", "senescent")
    """Label of the negative class, then of the positive one."""
    channels: Annotated[tuple[str, ...], Field(min_length=1, max_length=3)] = ("SRS", "TPEF", "Transmission")
    """Names of the channels, in the order of the files."""
    grey: Literal["refuse", "repeat"] = "refuse"
    """What to do with images of one channel: refuse them, or repeat them over all channels."""
    fit: Literal["refuse", "pad", "resize"] = "refuse"
    """What to do with images of another size than `input`: refuse them, centre them on zeros (what stands
    over is cut off), or resize them bilinearly."""
    per_channel: tuple[str, ...] = ()
    """For channels that lie in files of their own: the part of the names (or of the folders) that tells the
    channels apart, in the order of `channels`, such as `[_ch00, _ch01, _ch02]`; or a mapping, such as
    `{SRS: -SRS, TPEF: -TPEF, Transmission: -T}`."""
    accept: tuple[Acceptable, ...] = ()
    """What was looked at and is in order, though it looks like a mistake: `per-channel` (names that look like
    one file per channel), `zero-level` (files whose zero levels are thousands apart), `channel-names` (files
    that name their channels differently), `types` (classes stored as different types of numbers). It is then
    a warning, and no fault."""
    pixel_size_um: Positive = 0.35
    """Edge of a pixel in the sample; told to the ensemble that is exported."""

    @model_validator(mode="before")
    @classmethod
    def _in_order_of_channels(cls, data: Any) -> Any:
        """Bring a mapping of channels to parts of names into the order of the channels."""
        if not (isinstance(data, dict) and isinstance(data.get("per_channel"), dict)):
            return data
        named = data["per_channel"]
        channels = data.get("channels", cls.model_fields["channels"].default)
        if set(named) != set(channels):
            raise ValueError(
                f"per_channel names {', '.join(map(str, named))}; "
                f"channels are {', '.join(map(str, channels))}"
            )
        return data | {"per_channel": tuple(named[channel] for channel in channels)}

    @model_validator(mode="after")
    def _one_part_for_each_channel(self) -> DataConfig:
        parts = [part.casefold() for part in self.per_channel]
        if not parts:
            return self
        if len(parts) != len(self.channels):
            raise ValueError(
                f"per_channel names {len(parts)} parts of file names, channels names {len(self.channels)}: "
                f"{', '.join(self.channels)}"
            )
        if len(set(parts)) < len(parts) or not all(part.strip("/") for part in parts):
            raise ValueError("per_channel must name another part of the file names for each channel")
        return self


class InputConfig(ConfigModel):
    """Size of a field of view as the networks take it."""

    height: Annotated[int, Field(ge=32, le=4096)] = 250
    """Rows. Some networks need 75 at least."""
    width: Annotated[int, Field(ge=32, le=4096)] = 300
    """Columns."""


class SplitConfig(ConfigModel):
    """Which fields of view test, and which stop the training early."""

    by: Literal["column", "fov", "group", "leave-one-group-out"] = "fov"
    """`column` takes the split that dataset.csv names; `fov` draws single FOVs, as the paper does; `group`
    draws whole groups (culture plates, donors), so that no group is in both; `leave-one-group-out` tests
    on each group in turn. FOVs of one plate resemble each other: a split by FOV flatters."""
    test_fraction: Fraction = 54 / 224
    """Of the FOVs (or groups) of each class."""
    validation_fraction: Fraction = 43 / 170
    """Of the training FOVs (or groups) of each class; drawn anew for each network and run."""
    groups: tuple[str, ...] = ()
    """With `leave-one-group-out`: the groups to leave out; all of them if empty."""


class NormalizationConfig(ConfigModel):
    """The intensity range that is mapped to 0..255."""

    k_iqr: Positive = 3.5
    """Pixels beyond median +- this many interquartile ranges are outliers."""
    fitted_on: Literal["training", "each_split"] = "training"
    """`each_split` scales training, validation and test FOVs each by their own statistics, as the authors'
    code does: copies are made of raw counts, their corners filled with zeros, and the range is fitted on
    FOVs and copies together. It is for comparison only: a single new FOV has no such statistics."""


class Config(ConfigModel):
    """An experiment: data, procedure, systems, runs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Of the experiment; its folder under `runs_dir` has that name."""
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
    """What to train; single networks are reported with `fully_trained`."""
    networks: Annotated[tuple[NetworkName, ...], Field(min_length=1)] = NETWORKS
    """Of the ensembles and of the hybrid."""
    runs: Annotated[int, Field(ge=1, le=1000)] = 9
    """Repetitions with other validation splits, augmentations and initial weights."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Everything random follows from it."""
    weights: Literal["auto", "imagenet", "random"] = "auto"
    """Of the backbones: Keras' ImageNet weights, seeded random ones, or whichever needs no download."""
    weights_dir: Path | None = None
    """Folder with Keras' weight files; a relative path counts from the configuration file."""
    keep_weights: Literal["all", "none"] = "all"
    """Keep the fine-tuned weights of each run (600 MB for all seven), which an export needs."""
    runs_dir: Path = Path("runs")
    """Where experiments are kept; a relative path counts from the configuration file."""

    @field_validator("systems", "networks")
    @classmethod
    def _no_repeats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"names repeat: {', '.join(names)}")
        return names

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        channels = self.data.channels
        if any(system.startswith("two_channels") for system in self.systems) and channels != (
            "SRS",
            "TPEF",
            "Transmission",
        ):
            raise ValueError(
                "the two-channel systems leave out one of SRS, TPEF and Transmission; "
                f"the data set has {', '.join(channels)}: take them out of `systems`"
            )
        if len(channels) != 3 and set(self.systems) != {"scratch"}:
            raise ValueError(
                f"the backbones take 3 channels, data.channels names {len(channels)}; with one detector, "
                "name it three times over (NADH, NADH 2, NADH 3) and set data.grey: repeat"
            )
        if self.split.groups and self.split.by != "leave-one-group-out":
            raise ValueError("split.groups is for split.by: leave-one-group-out")
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
    """Read a configuration file.

    Parameters
    ----------
    runs : int, optional
        Instead of the file's.
    data : Path, optional
        Folder of the data set, instead of the file's.

    Raises
    ------
    ConfigError
        With every fault of the file in one message.
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
        raise ConfigError(f"{path} must hold keys such as `name:` and `data:`")
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
