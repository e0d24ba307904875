"""ONNX Runtime sessions that run on the requested provider, or fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import onnxruntime as ort

from senoscope.engine.cancellation import Cancellation
from senoscope.engine.contract import check_graph
from senoscope.engine.errors import DeviceError, EnsembleError
from senoscope.engine.executor import NetworkFile

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_SEVERITY_ERROR = 3  # of ONNX Runtime; 2 is warning


def usable_cores() -> int:
    """Return the number of cores that this process may use, by its affinity where the system reports it."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def preload_cuda() -> None:
    """Load CUDA's libraries from pip packages, if installed."""
    # Otherwise each session warns that the CUDA provider is not a plug-in, which is irrelevant.
    ort.set_default_logger_severity(_SEVERITY_ERROR)
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def create_session(
    network: NetworkFile,
    *,
    threads: int,
    providers: Sequence[Any],
    options: dict[str, str] | None = None,
    cancellation: Cancellation | None = None,
) -> ort.InferenceSession:
    """Open a network.

    Parameters
    ----------
    threads : int
        Intra-op threads.
    providers : sequence
        In the form of ONNX Runtime; the first one must run the network.
    options : dict of str to str, optional
        Additional session configuration entries.

    Raises
    ------
    DeviceError
        If the session uses another provider than requested; ONNX Runtime itself only warns.
    EnsembleError
        If the file is not a network, or not the one that the manifest describes.
    """
    path = network.path
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = _SEVERITY_ERROR
    # Threads that spin between runs would take cores from the other networks.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Denormals make a convolution a hundred times slower, and carry no information here.
    settings.add_session_config_entry("session.set_denormal_as_zero", "1")
    for key, value in (options or {}).items():
        settings.add_session_config_entry(key, value)
    requested = providers[0] if isinstance(providers[0], str) else providers[0][0]
    try:
        with nullcontext() if cancellation is None else cancellation.opening(settings):
            session = ort.InferenceSession(str(path), settings, providers=list(providers))
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        if cancellation is not None:
            cancellation.require()
        if requested != CPU:
            raise DeviceError(f"{requested} cannot run {path.name}: {error}") from error
        raise EnsembleError(path, f"ONNX Runtime cannot load it: {error}") from error
    actual = session.get_providers()[0]
    if actual != requested:
        raise DeviceError(
            f"{path.name} was to run on {requested}, but ONNX Runtime selected {actual}: the CUDA libraries "
            'are missing or incompatible. Run `pip install "senoscope[gpu]"`, or use `--device cpu`'
        )
    check_graph(session, network)
    return session
