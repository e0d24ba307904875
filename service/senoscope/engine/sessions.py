"""ONNX Runtime sessions that run on the requested provider, or fail."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime.

    Attributes
    ----------
    name : str
    options : mapping of str to str
    devices : tuple of onnxruntime.OrtEpDevice
        Those to use, of a provider from a plug-in library; empty for a built-in provider.
    remedy : str
        What to do if ONNX Runtime selects another provider.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Any, ...] = ()
    remedy: str = ""


def create_session(
    network: NetworkFile,
    provider: Provider,
    *,
    threads: int,
    cancellation: Cancellation | None = None,
) -> ort.InferenceSession:
    """Open a network.

    Parameters
    ----------
    threads : int
        Intra-op threads.

    Raises
    ------
    DeviceError
        If the session uses another provider than requested; ONNX Runtime itself only warns.
    EnsembleError
        If the file is not a network, or not the one that the manifest describes.
    """
    path = network.path
    settings = session_options(threads)
    try:
        with nullcontext() if cancellation is None else cancellation.opening(settings):
            session = open_session(str(path), settings, provider, path.name)
    except DeviceError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        if cancellation is not None:
            cancellation.require()
        if provider.name != CPU:
            raise DeviceError(f"{provider.name} cannot run {path.name}: {error}") from error
        raise EnsembleError(path, f"ONNX Runtime cannot load it: {error}") from error
    check_graph(session.get_inputs(), session.get_outputs(), network)
    return session


def session_options(threads: int) -> ort.SessionOptions:
    """Return the options of all sessions."""
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
    return settings


def open_session(
    model: str | bytes, settings: ort.SessionOptions, provider: Provider, name: str
) -> ort.InferenceSession:
    """Open a graph, and raise DeviceError unless the provider runs it; ``name`` is that of the graph."""
    if provider.devices:
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        settings.add_provider_for_devices(list(provider.devices), dict(provider.options))
        session = ort.InferenceSession(model, settings)
    else:
        session = ort.InferenceSession(model, settings, providers=[(provider.name, dict(provider.options))])
    actual = session.get_providers()[0]
    if actual != provider.name:
        raise DeviceError(
            f"{name} was to run on {provider.name}, but ONNX Runtime selected {actual}: {provider.remedy}"
        )
    if provider.devices:
        _require_convolutions(session, provider.name, name)
    return session


def _require_convolutions(session: ort.InferenceSession, provider: str, name: str) -> None:
    """Check that a plug-in took the convolutions: it may leave any node to the CPU without an error."""
    owners = [
        part.ep_name
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if "Conv" in node.op_type
    ]
    left = [owner for owner in owners if owner != provider]
    if left:
        raise DeviceError(
            f"{provider} leaves {len(left)} of the {len(owners)} convolutions of {name} to {left[0]}"
        )
