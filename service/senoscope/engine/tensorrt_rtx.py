"""Execution with TensorRT for RTX, a plug-in provider of ONNX Runtime for NVIDIA's RTX cards.

Needs the extra ``tensorrt-rtx``. It compiles each network for the GPU when it is first used, which takes a
while; compiled networks are kept in the user's cache folder. Not measured, and never selected by ``auto``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort
import platformdirs
import structlog

from senoscope.engine.cancellation import Cancellation
from senoscope.engine.errors import DeviceError
from senoscope.engine.executor import OUTPUT_NAMES, NetworkFile, NetworkOutput, Placement
from senoscope.engine.nvidia import Gpu, find_gpu
from senoscope.engine.precision import Precision
from senoscope.engine.sessions import Provider, create_session
from senoscope.engine.workers import Feeds, OpenNetwork, WorkerExecutor

_log = structlog.get_logger(__name__)
_PACKAGE: Final = "onnxruntime_ep_nv_tensorrt_rtx"
_DISTRIBUTION: Final = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
_CAPABILITIES: Final = frozenset({(8, 6), (8, 9)})  # the RTX 30 and 40 series; later ones are above
_BLACKWELL: Final = 12
_RECORD: Final = "made-for.json"
_LARGEST_BATCH: Final = 64  # of the setting --batch-size
_registration = threading.Lock()


def problem() -> str | None:
    """Return why TensorRT RTX cannot be used, or None."""
    try:
        gpu = find_gpu()
    except DeviceError as error:
        return str(error)
    return unsupported(gpu) or (
        'TensorRT RTX is not installed: run `pip install "senoscope[tensorrt-rtx]"`'
        if importlib.util.find_spec(_PACKAGE) is None
        else None
    )


def unsupported(gpu: Gpu) -> str | None:
    """Return why TensorRT RTX does not support a GPU, or None: data-centre cards and Jetsons are not."""
    if gpu.capability in _CAPABILITIES or gpu.capability[0] >= _BLACKWELL:
        return None
    capability = ".".join(map(str, gpu.capability))
    return (
        f"TensorRT RTX does not support the {gpu.name} (compute capability {capability}), only RTX cards of "
        "the 30 series and later; use --device cuda"
    )


def find_devices() -> tuple[Any, ...]:
    """Register the plug-in library with ONNX Runtime, once in a process, and return its first device.

    Raises
    ------
    DeviceError
        If the library cannot be loaded, or finds no device.
    """
    plugin = importlib.import_module(_PACKAGE)
    name, library = plugin.get_ep_name(), plugin.get_library_path()
    with _registration:
        try:
            ort.register_execution_provider_library(name, library)
        except Exception as error:
            if "already registered" not in str(error):
                raise DeviceError(f"TensorRT RTX cannot be loaded: {error}") from error
    devices = tuple(device for device in ort.get_ep_devices() if device.ep_name == name)
    if not devices:
        raise DeviceError("TensorRT RTX finds no GPU that it supports")
    return devices[:1]


def open_cache(caches: Path, made_for: dict[str, str]) -> Path:
    """Return the folder of networks compiled for exactly this ensemble, GPU, driver and versions.

    One that was made for others, for example on another machine, is deleted, and its networks are compiled
    again.

    Parameters
    ----------
    caches : Path
        Folder of all caches.
    made_for : dict of str to str
        What the compiled networks depend on: ``digest``, ``precision``, ``GPU`` and others.
    """
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", made_for["GPU"])
    folder = caches / f"{made_for['digest'][:16]}-{made_for['precision']}-{gpu}"
    record = folder / _RECORD
    if folder.exists():
        try:
            found = dict(json.loads(record.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            found = {}
        differences = [
            f"{name} {found.get(name, 'unknown')}, here {value}"
            for name, value in made_for.items()
            if found.get(name) != value
        ]
        if not differences:
            return folder
        _log.warning(
            "compiled networks were made for another machine or version, and are compiled again",
            folder=str(folder),
            differences="; ".join(differences),
        )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    record.write_text(json.dumps(made_for, indent=2), "utf-8")
    return folder


def _made_for(gpu: Gpu, digest: str, precision: Precision) -> dict[str, str]:
    try:
        provider = version(_DISTRIBUTION)
    except PackageNotFoundError:
        provider = "unknown"
    return {
        "digest": digest,
        "precision": precision,
        "GPU": gpu.name,
        "card": gpu.identifier,
        "driver": gpu.driver,
        "TensorRT RTX": provider,
        "ONNX Runtime": ort.__version__,
    }


def _allow_tf32(allowed: bool) -> None:
    # It rounds to TF32 unless this variable, which it reads when it compiles a network, forbids it; there is
    # no option of the provider.
    if allowed:
        os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    else:
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


class TensorRtRtxExecutor(WorkerExecutor):
    """Runs the networks with TensorRT RTX, one after another.

    Parameters
    ----------
    precision : {"fp32", "tf32", "fp16"}
        ``fp16`` computes networks with a file of this precision in it, and the others in fp32.
    digest : str
        Of the ensemble, for its cache.
    caches : Path, optional
        Folder of compiled networks; default: in the user's cache folder.
    cancellation : Cancellation, optional
        Interrupts opening and runs.
    """

    device = "tensorrt-rtx"
    cools_down = True

    def __init__(
        self,
        networks: Sequence[NetworkFile],
        *,
        precision: Precision = "fp32",
        digest: str = "",
        caches: Path | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        if precision == "tf32" and any(network.precision == "fp32" for network in networks):
            raise DeviceError("TensorRT RTX computes either all networks in TF32 or none")
        gpu = find_gpu()
        devices = find_devices()
        self.hardware = gpu.name
        self._options = options = ort.RunOptions()
        self._provider = provider = devices[0].ep_name
        if cancellation is not None:
            cancellation.watch_run(options)
        caches = caches or platformdirs.user_cache_path("senoscope", appauthor=False) / "tensorrt-rtx"
        cache = open_cache(caches, _made_for(gpu, digest, precision))
        _allow_tf32(precision == "tf32")

        def open_network(network: NetworkFile) -> OpenNetwork:
            folder = cache / network.name
            if not folder.exists():
                _log.info("compiling a network for this GPU", network=network.name, gpu=gpu.name)
                folder.mkdir()
            session = create_session(
                network,
                Provider(provider, _provider_options(network, folder), devices),
                threads=1,
                cancellation=cancellation,
            )

            def run(feeds: Feeds) -> NetworkOutput:
                return NetworkOutput(*session.run(OUTPUT_NAMES, feeds, options))

            return run

        super().__init__(networks, 1, open_network)

    def describe(self) -> Placement:
        """Return the provider."""
        return {"provider": self._provider, "workers": self._workers}

    def interrupt(self) -> None:
        """Make a run in progress, and later ones, end with an error."""
        self._options.terminate = True


def _provider_options(network: NetworkFile, cache: Path) -> dict[str, str]:
    def shape(batch: int) -> str:
        return f"image:{'x'.join(map(str, (batch, *network.input_shape)))}"

    return {
        "nv_runtime_cache_path": str(cache),
        # Compiled for one field of view; other sizes of batches run, too.
        "nv_profile_min_shapes": shape(1),
        "nv_profile_opt_shapes": shape(1),
        "nv_profile_max_shapes": shape(_LARGEST_BATCH),
    }
