"""ONNX Runtime sessions that run where they were asked to run, or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import onnxruntime as ort

from senoscope.engine.contract import check_graph
from senoscope.engine.errors import DeviceError, EnsembleError
from senoscope.engine.executor import NetworkFile

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_ERROR = 3  # ONNX Runtime's severity scale: 2 is warning


def usable_cores() -> int:
    """Cores that this process may use (affinity and container limits included where the system tells)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def preload_cuda() -> None:
    """Let ONNX Runtime find CUDA's libraries where pip put them; harmless where there are none."""
    # Else each session warns that CUDA is no plug-in, which it need not be.
    ort.set_default_logger_severity(_ERROR)
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def create_session(
    network: NetworkFile, *, threads: int, providers: Sequence[Any], options: dict[str, str] | None = None
) -> ort.InferenceSession:
    """Open a network.

    Parameters
    ----------
    network : NetworkFile
    threads : int
        Intra-op threads.
    providers : sequence
        As ONNX Runtime takes them; the first is the one that must run the network.
    options : dict of str to str, optional
        Further session configuration entries.

    Raises
    ------
    DeviceError
        If the session got another provider than asked for. ONNX Runtime itself only warns.
    EnsembleError
        If the file is no network of the contract, or not the one that the manifest describes.
    """
    path = network.path
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = _ERROR
    # Workers that spin between runs take the cores from the networks beside them.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Denormals slow a convolution down a hundredfold, and carry no information here.
    settings.add_session_config_entry("session.set_denormal_as_zero", "1")
    for key, value in (options or {}).items():
        settings.add_session_config_entry(key, value)
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    try:
        session = ort.InferenceSession(str(path), settings, providers=list(providers))
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        if wanted != CPU:
            raise DeviceError(f"{wanted} cannot run {path.name}: {error}") from error
        raise EnsembleError(path, f"ONNX Runtime cannot load it: {error}") from error
    got = session.get_providers()[0]
    if got != wanted:
        raise DeviceError(
            f"{path.name} was to run on {wanted}, but ONNX Runtime chose {got}: the CUDA libraries are "
            'missing or do not fit. `pip install "senoscope[gpu]"` brings them; `--device cpu` does without'
        )
    check_graph(session, network)
    return session
