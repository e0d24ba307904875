"""The weights of backbones: Keras' ImageNet weights from a download or files, or random weights."""

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
import pooch

from senoscope.engine.manifest import BackboneWeights, sha256_of
from senoscope_training.networks.architectures import ARCHITECTURES, build_application

WeightsOption = Literal["auto", "imagenet", "random"]
SUMS_NAME = "SHA256SUMS"
_HOST = "https://storage.googleapis.com"
_TIMEOUT_S = 10.0


class WeightsError(Exception):
    """Weights are not available, or are invalid; the message contains a remedy."""


@dataclass(frozen=True)
class WeightsPlan:
    """The source of the weights of all networks: files, downloads for the others, or random weights."""

    files: dict[str, Path]
    download: bool = False

    @property
    def random(self) -> bool:
        """Whether the weights are random."""
        return not self.files and not self.download

    @property
    def description(self) -> str:
        """The source as text; it is stored with experiments and compared when they are resumed."""
        if self.download:
            return "ImageNet weights, downloaded by Keras"
        return "ImageNet weights from files" if self.files else "seeded random weights"


def find_weight_file(name: str, directory: Path) -> Path | None:
    """Find a network's weight file in a folder, by Keras' file name or as ``<name>.weights.h5``."""
    candidates = (directory / ARCHITECTURES[name].notop_file, directory / f"{name}.weights.h5")
    return next((path for path in candidates if path.is_file()), None)


def plan_weights(option: WeightsOption, weights_dir: Path | None, names: Sequence[str]) -> WeightsPlan:
    """Decide which weights to use.

    ``auto`` uses ImageNet files if ``weights_dir``, or Keras' cache, contains one for every network, and
    otherwise random weights; it does not need a network connection. ``imagenet`` uses the files that exist,
    and downloads the others.

    Raises
    ------
    WeightsError
        If ``weights_dir`` does not contain the files of all networks, if a file is invalid, or if
        ``imagenet`` needs a download and the server cannot be reached.
    """
    if option == "random":
        if weights_dir is not None:
            raise WeightsError("--weights random uses no files: remove --weights-dir")
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
    """Return the folder in which Keras stores downloaded weights, without the import of Keras."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def verify_weight_file(name: str, path: Path) -> None:
    """Compare a weight file with ``SHA256SUMS`` in its folder and with the hash that Keras publishes.

    Raises
    ------
    WeightsError
        If a hash differs. A file without a known hash is accepted; its hash is stored in the manifest.
    """
    sums = path.parent / SUMS_NAME
    if sums.is_file():
        # Format of sha256sum: the hash, a space, a space or an asterisk, the name.
        lines = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8").splitlines())
        listed = {parts[1].strip().lstrip("*"): parts[0].lower() for parts in lines if len(parts) == 2}
        expected = listed.get(path.name)
        if expected is not None and expected != sha256_of(path):
            raise WeightsError(
                f"{path} does not have the sha256 that {sums} lists: it is damaged or another file"
            )
    published = ARCHITECTURES[name].notop_md5
    if published and path.name == ARCHITECTURES[name].notop_file:
        # Keras publishes only MD5 sums, which detect damaged files, but not attacks.
        actual = pooch.file_hash(path, "md5")
        if actual != published:
            raise WeightsError(f"{path} has MD5 {actual}, but Keras publishes {published}: download it again")


def _check_reachable() -> None:
    try:
        with urllib.request.urlopen(_HOST, timeout=_TIMEOUT_S):
            pass
    except urllib.error.HTTPError:
        pass  # the server is reachable
    except OSError as error:
        raise WeightsError(
            f"--weights imagenet: Keras' weight server cannot be reached ({_HOST}: {error}). "
            "Download the files on another computer and pass --weights-dir, or use --weights random"
        ) from error


def load_application(name: str, plan: WeightsPlan, seed: int, height: int, width: int) -> Any:
    """Build a network's ``keras.applications`` model with the planned weights, or Keras' random weights."""
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
    socket.setdefaulttimeout(_TIMEOUT_S)  # Keras sets none; a lost connection would never time out
    try:
        ARCHITECTURES[name].build(height, width, weights="imagenet")
    except Exception as error:  # Keras raises errors of urllib as Exception
        raise WeightsError(f"{name}: the download of ImageNet weights failed: {error}") from error
    finally:
        socket.setdefaulttimeout(before)
    path = find_weight_file(name, keras_cache())
    if path is None:
        raise WeightsError(f"{name}: Keras downloaded weights, but not to {keras_cache()}")
    verify_weight_file(name, path)
    return path


def describe_weights(name: str, application: Any, plan: WeightsPlan) -> BackboneWeights:
    """Return the manifest's entry for a backbone's weights."""
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
