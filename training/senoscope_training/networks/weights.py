"""Where a backbone's weights come from: Keras' download, weight files, or a seed."""

from __future__ import annotations

import hashlib
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from senoscope.engine.manifest import BackboneWeights, sha256_of
from senoscope_training.networks.architectures import ARCHITECTURES, build_application

WeightsOption = Literal["auto", "imagenet", "random"]
SUMS_NAME = "SHA256SUMS"
_HOST = "https://storage.googleapis.com"
_TIMEOUT_S = 10.0


class WeightsError(Exception):
    """Weights cannot be had, or are not what they should be; the message says what to do."""


@dataclass(frozen=True)
class WeightsPlan:
    """What was decided for all networks before any work begins.

    Attributes
    ----------
    files : dict of str to Path
        Weight file of each network; empty where no files are used.
    download : bool
        Let Keras fetch its ImageNet weights.
    """

    files: dict[str, Path]
    download: bool = False

    @property
    def random(self) -> bool:
        """Neither files nor a download."""
        return not self.files and not self.download

    @property
    def words(self) -> str:
        """In a few words, for people."""
        if self.download:
            return "ImageNet weights, downloaded by Keras"
        return "ImageNet weights from files" if self.files else "seeded random weights"


def find_weight_file(name: str, directory: Path) -> Path | None:
    """A network's weight file in a folder, under Keras' name for it or as ``<name>.weights.h5``."""
    candidates = (directory / ARCHITECTURES[name].notop_file, directory / f"{name}.weights.h5")
    return next((path for path in candidates if path.is_file()), None)


def plan_weights(option: WeightsOption, weights_dir: Path | None, names: Sequence[str]) -> WeightsPlan:
    """Decide where the weights come from.

    ``auto`` takes ImageNet files where all networks have one, in ``weights_dir`` or in Keras' own cache,
    and random weights otherwise; it never touches the network. ``imagenet`` takes files where there are
    any and downloads the rest.

    Raises
    ------
    WeightsError
        If ``weights_dir`` lacks a network's file, if a file fails its check, or if ``imagenet`` would need
        a download and nothing can be reached.
    """
    if option == "random":
        if weights_dir is not None:
            raise WeightsError("--weights random takes no files: leave --weights-dir away")
        return WeightsPlan({})
    folder = weights_dir or keras_cache()
    searched = {name: find_weight_file(name, folder) for name in names}
    found = {name: path for name, path in searched.items() if path is not None}
    missing = [name for name in names if name not in found]
    if weights_dir is not None and missing:
        wanted = ", ".join(f"{name} ({ARCHITECTURES[name].notop_file})" for name in missing)
        raise WeightsError(f"{weights_dir} has no weight file for {wanted}")
    if missing and option == "auto":
        return WeightsPlan({})
    for name, path in found.items():
        verify_weight_file(name, path)
    if missing:
        _check_reachable()
        return WeightsPlan(found, download=True)
    return WeightsPlan(found)


def keras_cache() -> Path:
    """The folder where Keras keeps weights that it has downloaded, by Keras' own rule.

    Asking Keras would mean to import TensorFlow, which the process that only coordinates does not need.
    """
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def verify_weight_file(name: str, path: Path) -> None:
    """Check a weight file against ``SHA256SUMS`` beside it and against the hash that Keras publishes.

    Raises
    ------
    WeightsError
        If either disagrees. A file that neither knows passes; its hash goes into the manifest.
    """
    sums = path.parent / SUMS_NAME
    if sums.is_file():
        # As sha256sum writes it: the hash, a blank, a blank or an asterisk, the name.
        lines = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8").splitlines())
        listed = {parts[1].strip().lstrip("*"): parts[0].lower() for parts in lines if len(parts) == 2}
        expected = listed.get(path.name)
        if expected is not None and expected != sha256_of(path):
            raise WeightsError(f"{path} has another sha256 than {sums} lists: damaged, or another file")
    published = ARCHITECTURES[name].notop_md5
    if published and path.name == ARCHITECTURES[name].notop_file:
        with path.open("rb") as file:
            # Keras publishes MD5 sums only; they guard against damage here, not against malice.
            actual = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if actual != published:
            raise WeightsError(f"{path} has MD5 {actual}, Keras publishes {published}: fetch it again")


def _check_reachable() -> None:
    try:
        with urllib.request.urlopen(_HOST, timeout=_TIMEOUT_S):
            pass
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        raise WeightsError(
            f"--weights imagenet: Keras' weight server cannot be reached ({_HOST}: {error}). "
            "Fetch the files elsewhere and give --weights-dir, or use --weights random"
        ) from error


def load_application(name: str, plan: WeightsPlan, seed: int, height: int, width: int) -> Any:
    """Build a network's ``keras.applications`` model with the planned weights.

    Random weights are as Keras initialises them then; see :mod:`senoscope_training.networks.random_weights`.

    Raises
    ------
    WeightsError
        If a download fails or a file does not fit the network.
    """
    import keras

    keras.utils.set_random_seed(seed)
    application = build_application(name, height, width)
    path = plan.files.get(name)
    if path is None and plan.download:
        path = _download(name, height, width)
    if path is not None:
        try:
            application.load_weights(path)
        except (ValueError, OSError, KeyError) as error:
            raise WeightsError(f"{path} does not fit {name}: {error}") from error
    return application


def _download(name: str, height: int, width: int) -> Path:

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)  # Keras sets none, and a dead connection would hang for ever
    try:
        ARCHITECTURES[name].build(height, width, weights="imagenet")
    except Exception as error:  # Keras wraps what urllib raises in a bare Exception
        raise WeightsError(f"{name}: the download of ImageNet weights failed: {error}") from error
    finally:
        socket.setdefaulttimeout(before)
    path = find_weight_file(name, keras_cache())
    if path is None:
        raise WeightsError(f"{name}: Keras downloaded weights, but not to {keras_cache()}")
    verify_weight_file(name, path)
    return path


def describe_weights(name: str, application: Any, plan: WeightsPlan) -> BackboneWeights:
    """What the manifest says about a backbone's weights."""
    path = plan.files.get(name)
    if path is None and plan.download:
        path = find_weight_file(name, keras_cache())
    if path is not None:
        source = "imagenet" if path.name == ARCHITECTURES[name].notop_file else "file"
        return BackboneWeights(source=source, sha256=sha256_of(path))
    digest = hashlib.sha256()
    for weight in application.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return BackboneWeights(source="random", sha256=digest.hexdigest())
