"""The state of a running service: stream, ensemble, intensity range and run log."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict

from senoscope_client.models.base import OpenModel


class SeriesStatus(OpenModel):
    """A series of frames, as far as the service received it.

    Attributes
    ----------
    last_frame : int or None
        The highest frame number received.
    state : {"open", "ended", "interrupted"}
    planned_frames : int or None
        As the microscope announced.
    first_frame : int or None
        The first frame number received; greater than 0 where the service joined later.
    received, missing, repeated : int
        Frames.
    restarts : int
        How often the service was restarted during the series.
    end_reason : str or None
        As the microscope gave it.
    """

    series_uid: UUID
    series_id: str
    instrument: str
    last_frame: int | None
    state: Literal["open", "ended", "interrupted"]
    planned_frames: int | None
    first_frame: int | None
    received: int
    missing: int
    repeated: int
    restarts: int
    end_reason: str | None


class ReceiverStatus(OpenModel):
    """The subscription to the microscope's frames.

    Attributes
    ----------
    endpoint : str
    connected : bool
    connections : int
        How often a connection was established.
    refused : int
        Handshakes that failed.
    faults : dict of str to int
        Connections that ended because of what arrived, by kind of fault.
    problem : str or None
        Why no frames arrive, or None.
    silent_s : float or None
        Seconds since the last message; None before the first one.
    messages : dict of str to int
        Messages received, by type.
    rejected : dict of str to int
        Messages that cannot be used, frames that do not fit the ensemble included, by reason.
    last_rejection : str or None
    series : tuple of SeriesStatus
        Newest first.
    """

    endpoint: str
    connected: bool
    connections: int
    refused: int
    faults: dict[str, int]
    problem: str | None
    silent_s: float | None
    messages: dict[str, int]
    rejected: dict[str, int]
    last_rejection: str | None
    series: tuple[SeriesStatus, ...]


class WatchedFileNotice(OpenModel):
    """A warning or failure of a watched file; ``file`` is its path in the folder."""

    file: str
    text: str


class WatchStatus(OpenModel):
    """The folder that is watched (``--watch``); counts are since the start of the service.

    Attributes
    ----------
    folder : str
        Its name, without the path.
    waiting : int
        Files that are not classified yet: of those, some may still be written.
    reading : str or None
        The file that is being classified.
    classified, unreadable, changed : int
        Files: classified completely, reported as unreadable, changed after they were classified.
    failed : tuple of WatchedFileNotice
        The latest files that could not be classified, and why, as long as they are in the folder unchanged.
    warnings : tuple of WatchedFileNotice
        The latest warnings about files that were classified.
    problem : str or None
        Why no file is classified now, or None.
    """

    folder: str
    waiting: int
    reading: str | None
    classified: int
    unreadable: int
    changed: int
    failed: tuple[WatchedFileNotice, ...]
    warnings: tuple[WatchedFileNotice, ...]
    problem: str | None


class LiveLaneStatus(OpenModel):
    """Frames of the stream on their way through the engine.

    Attributes
    ----------
    waiting, capacity, classified, dropped, failed : int
        Frames.
    dropped_reasons : dict of str to int
    late : int
        Results that missed the deadline.
    deadline_ms : float
    """

    waiting: int
    capacity: int
    classified: int
    dropped: int
    dropped_reasons: dict[str, int]
    failed: int
    late: int
    deadline_ms: float


class BatchLaneStatus(OpenModel):
    """Fields of view of posted stacks on their way through the engine."""

    waiting: int
    capacity: int
    classified: int


class EngineStatus(OpenModel):
    """Faults of the engine, and the threads that every result passes.

    Attributes
    ----------
    retried : int
        Batches that were computed a second time because the first attempt failed.
    results_failed : int
        Predictions of which no result could be made.
    thread_deaths : dict of str to int
        By thread.
    thread_problems : dict of str to str
        Threads that do not run, and why.
    """

    retried: int
    results_failed: int
    thread_deaths: dict[str, int]
    thread_problems: dict[str, str]


class DecisionsStatus(OpenModel):
    """The rules in force and what they decided.

    Attributes
    ----------
    dry_run : bool
        Whether decisions are only logged and shown.
    rules : tuple of str
        A description of each.
    decided : dict of str to int
        Decisions by rule.
    withheld : int
        Revisits beyond the limits of the rules.
    waiting, lost : int
        Results that wait to be judged, and results that were never judged.
    """

    dry_run: bool
    rules: tuple[str, ...]
    decided: dict[str, int]
    withheld: int
    waiting: int
    lost: int


class ArchiveStatus(OpenModel):
    """The archive of pixels: fields of view written and lost, and why none is written now."""

    written: int
    lost: int
    problem: str | None


class RunLogStatus(OpenModel):
    """The run log.

    Attributes
    ----------
    place : str
        Its database, without password.
    state : str
        ``ok``, ``opening``, ``stopped``, or the kind of fault.
    problem : str or None
        Why results are not logged now.
    written, waiting, lost : int
        Entries.
    """

    place: str
    state: str
    problem: str | None
    written: int
    waiting: int
    lost: int


class TracesStatus(OpenModel):
    """OpenTelemetry spans: how many were made, and how many the collector took."""

    made: int
    sent: int


class LiveClientsStatus(OpenModel):
    """WebSocket clients: connected, disconnected because they were too slow, refused."""

    connected: int
    lost: int
    refused: int


class PipelineStatus(OpenModel):
    """The way of frames and stacks through a service: receiver, lanes, engine and outputs.

    Attributes
    ----------
    receiver : ReceiverStatus or None
        None where the service subscribes to no stream.
    watch : WatchStatus or None
        None where it watches no folder.
    results_endpoint : str or None
        Where results are published over ZeroMQ.
    results_subscribers : int
    results_refused : dict of str to int
        Subscribers that were refused, by reason.
    live : LiveLaneStatus
    batch : BatchLaneStatus
    engine : EngineStatus
    decisions, archive, run_log, traces
        None where the settings do not ask for them.
    """

    receiver: ReceiverStatus | None
    watch: WatchStatus | None = None
    results_endpoint: str | None
    results_subscribers: int
    results_refused: dict[str, int]
    live: LiveLaneStatus
    batch: BatchLaneStatus
    engine: EngineStatus
    decisions: DecisionsStatus | None
    archive: ArchiveStatus | None
    run_log: RunLogStatus | None
    traces: TracesStatus | None


class StreamStatus(PipelineStatus):
    """The answer of ``GET /v1/stream``.

    Attributes
    ----------
    live_clients : LiveClientsStatus
    requests_refused : dict of str to int
        HTTP requests refused before any route, by reason.
    """

    live_clients: LiveClientsStatus
    requests_refused: dict[str, int]


class AgreementWithFp32(OpenModel):
    """How far outputs in a lower precision deviate from fp32.

    Attributes
    ----------
    fovs : int
        Reference fields of view that were compared.
    max_abs_probability, p99_abs_probability : float
        Largest absolute deviation of the probability, and its 99th percentile.
    label_flips : int
        Fields of view that get another label although their probability is not near the threshold.
    gradcam_iou : float
        Overlap of the brightest tenths of the Grad-CAM maps, mean over the fields of view.
    auc_loss : float or None
        Loss of area under the ROC curve; None without labels.
    """

    fovs: int
    max_abs_probability: float
    p99_abs_probability: float
    label_flips: int
    gradcam_iou: float
    auc_loss: float | None = None


class GateStatus(OpenModel):
    """What the gate measured on this machine, for each network and for the ensemble."""

    networks: dict[str, AgreementWithFp32]
    ensemble: AgreementWithFp32


class RejectedPrecision(OpenModel):
    """A precision that is not used, and why.

    Attributes
    ----------
    network : str or None
        The network that does not use it; None: the whole ensemble.
    found_at : str
        ``export``: ``ensemble.json`` states it; ``load``: found on this machine.
    """

    precision: str
    network: str | None
    reasons: tuple[str, ...]
    found_at: str


class EngineInfo(OpenModel):
    """The device that an ensemble runs on; other keys depend on it.

    Attributes
    ----------
    device : {"cpu", "cuda"}
    reason : str
        Why it was chosen.
    precision : str
        In which the ensemble is computed.
    fp32_networks : tuple of str
        In a lower precision: the networks that run in fp32.
    gate : GateStatus or None
        The agreement with fp32; None in fp32.
    rejected : tuple of RejectedPrecision
        Precisions that were considered and are not used.
    compute_ms : float
        Milliseconds for one field of view, measured at load.
    batch_sizes : tuple of int
        Sizes of batches that were measured.
    warnings : tuple of str
        What is suspicious about the ensemble.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    device: str
    reason: str
    precision: str = "fp32"
    fp32_networks: tuple[str, ...] = ()
    gate: GateStatus | None = None
    rejected: tuple[RejectedPrecision, ...] = ()
    compute_ms: float
    batch_sizes: tuple[int, ...]
    warnings: tuple[str, ...]


class ModelInfo(OpenModel):
    """The answer of ``GET /v1/model``: the ensemble in use.

    Attributes
    ----------
    digest : str
        SHA-256 of the manifest, which holds those of all files.
    engine : EngineInfo
    manifest : dict
        See the reference of ``ensemble.json``.
    """

    name: str
    version: str
    digest: str
    engine: EngineInfo
    manifest: dict[str, Any]


class CalibrationProgress(OpenModel):
    """Fields of view collected for a calibration, of how many."""

    fovs: int
    of: int


class NormalizationStatus(OpenModel):
    """The answer of ``GET /v1/normalization``: the intensity range in force.

    Attributes
    ----------
    source : str
        ``model`` or ``session``.
    channels : tuple of str
    low, high : tuple of float
        Raw detector units, for each channel.
    session : dict or None
        The calibration of this session.
    survives_restart : bool
        Whether the run log holds it.
    calibrating : CalibrationProgress or None
    problem : str or None
        Why the last calibration failed, or why it is not in force.
    warnings : tuple of str
        After a calibration from a stack: what was assumed about the file.
    """

    source: str
    channels: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    session: dict[str, Any] | None
    survives_restart: bool
    calibrating: CalibrationProgress | None
    problem: str | None
    warnings: tuple[str, ...] = ()
