"""All settings of the service, read once from the command line and from ``SENOSCOPE_*`` variables."""

from __future__ import annotations

import inspect
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import typer
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from senoscope.engine.devices import Device
from senoscope.engine.locations import default_models_dir
from senoscope.engine.precision import PrecisionChoice
from senoscope.runlog.places import OFF, checked_database_url, default_database_url
from senoscope_client.models.choices import CamMode

if TYPE_CHECKING:
    from senoscope.engine.gate import GateLimits
    from senoscope_client.images.reader import Limits

ENV_PREFIX: Final = "SENOSCOPE_"
"""Prefix of the environment variable of an option."""
_MIB = 1024 * 1024
_ENDPOINT = re.compile(r"tcp://(\[[^\]\s]+\]|[^:/\s]+):(\d{1,5}|\*)|ipc://\S+")


class Settings(BaseModel):
    """Settings of ``senoscope serve``; the description of a field is its help text on the command line.

    A field that is not given is read from its ``SENOSCOPE_*`` variable, or has its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: str = Field("starter", description="Ensemble: a name in --models-dir, or the path of its folder.")
    models_dir: Path = Field(default_factory=default_models_dir, description="Folder of the named ensembles.")
    device: Device = Field(
        "auto",
        description="auto uses CUDA if there is a GPU that works, else the CPU; the others require that "
        "device. tensorrt-rtx and openvino need the extra of that name.",
    )
    precision: PrecisionChoice = Field(
        "auto",
        description="Precision of the networks. auto uses the fastest of fp16, tf32 and fp32 that passes "
        "the gate on this machine. A named one is replaced by fp32, with a warning, if it does not pass, and "
        "is an error if the device does not offer it.",
    )
    gate_max_probability: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Gate: largest deviation of the ensemble's probability from fp32 in a lower precision.",
    )
    gate_p99_probability: float = Field(
        0.005, ge=0, le=1, description="Gate: 99th percentile of this deviation, at most."
    )
    gate_flip_margin: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Gate: distance of the probability in fp32 from the threshold within which a label may "
        "differ.",
    )
    gate_min_gradcam_iou: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Gate: smallest overlap (intersection over union) of the brightest tenths of the "
        "Grad-CAM maps in a lower precision and in fp32.",
    )
    gate_max_auc_loss: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Gate: largest loss of area under the ROC curve, where the reference fields of view have "
        "labels.",
    )
    load_timeout_s: float = Field(
        300.0, gt=0, description="Time limit for loading, verifying and warming up an ensemble."
    )
    threads: int | None = Field(None, ge=1, description="CPU cores for the networks; default: all.")
    host: str = Field("127.0.0.1", description="Address to listen on for HTTP and WebSocket.")
    port: int = Field(8750, ge=0, le=65535, description="Port for HTTP and WebSocket; 0 selects a free one.")
    stream: str = Field(
        "tcp://127.0.0.1:5555",
        description="ZeroMQ endpoint of the frame publisher on the acquisition PC; empty: no stream.",
    )
    instrument: str = Field(
        "",
        max_length=64,
        description="Name of the microscope, needed if several share a run log; a calibrated intensity range "
        "is stored under it. Default: the endpoint of the stream.",
    )
    watch: Path | None = Field(
        None,
        description="Folder to watch: each TIFF or NPY file in it and its sub-folders is classified once, "
        "when it is complete. Default: none.",
    )
    watch_interval_s: float = Field(
        1.0, gt=0, description="Interval at which the watched folder is listed, in seconds."
    )
    watch_settle_s: float = Field(
        2.0,
        gt=0,
        description="Seconds without a change after which a watched file is complete; 30 times as long for "
        "one that cannot be read, or not to its end.",
    )
    watch_axes: str | None = Field(
        None, description="Axes of the watched files, such as PCYX, if they do not define them."
    )
    watch_channels: str | None = Field(
        None, description="Channels of the watched files in their order, such as TPEF,SRS,Transmission."
    )
    results: str = Field(
        "tcp://127.0.0.1:5556", description="ZeroMQ endpoint to publish results at; empty: none."
    )
    results_cam: CamMode = Field("grid", description="Form of the Grad-CAM in published results.")
    deadline_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Deadline from the arrival of a frame to its result; later results are marked as late. "
        "Default: 24 where the device can keep it (a GPU on which one FOV takes less), otherwise none.",
    )
    live_queue: int = Field(
        8, ge=1, description="Maximum number of waiting live frames; beyond it the oldest is dropped."
    )
    batch_queue: int = Field(
        1024, ge=1, description="Maximum number of waiting FOVs of posted stacks; beyond it: 503."
    )
    batch_size: int = Field(
        8,
        ge=1,
        le=64,
        description="Maximum number of FOVs of a stack per batch; fewer if that is as fast, or, while a "
        "stream is open, if a live frame would be late or has no deadline.",
    )
    drain_s: float = Field(
        10.0,
        ge=0,
        description="Time limit for computing waiting frames and stacks when the service is stopped.",
    )
    fallback: Literal["none", "cpu"] = Field(
        "none",
        description="Device to use after two consecutive failures of another one; none: report not ready.",
    )
    max_upload_mib: int = Field(256, ge=1, description="Maximum size of a request body.")
    max_decoded_mib: int = Field(512, ge=1, description="Maximum size of a decoded stack.")
    request_memory_mib: int = Field(
        1024,
        ge=1,
        description="Memory limit for bodies and pixels of all requests together; beyond it: 503.",
    )
    max_fovs: int = Field(512, ge=1, description="Maximum number of FOVs per request.")
    remember_mib: int = Field(
        64,
        ge=1,
        description="Memory for pixels and maps of recent FOVs, from which Grad-CAM pictures are drawn.",
    )
    database_url: str = Field(
        default_factory=default_database_url,
        description="Run log: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE; none: no run log. "
        "Default: runlog.sqlite3 in the user's data folder.",
    )
    keep_days: float | None = Field(
        None, gt=0, description="Delete logged results after this number of days."
    )
    keep_mib: float | None = Field(
        None, ge=1, description="Delete the oldest logged results when the run log exceeds this size."
    )
    archive: Path | None = Field(
        None,
        description="Folder for the pixels of the stream, one OME-TIFF per series; default: none.",
    )
    rules: Path | None = Field(
        None,
        description="File of rules (TOML) to apply to results; `senoscope rules check` describes it. "
        "Decisions are published and logged; the service moves no hardware.",
    )
    live_backlog: int = Field(
        64,
        ge=1,
        description="Results that may wait per WebSocket client; beyond it the oldest is dropped.",
    )
    api_keys: Path | None = Field(
        None,
        description="File of API keys, created by `senoscope keys new`; with it every request needs a key.",
    )
    api_key: str | None = Field(
        None,
        min_length=32,
        pattern=r"^[A-Za-z0-9._~-]*$",
        repr=False,
        description="One API key with all scopes; prefer the variable: other users can see command lines.",
    )
    insecure: bool = Field(
        False, description="Allow other machines without API keys, and subscribers without CURVE."
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM); turns HTTPS on.")
    tls_key: Path | None = Field(None, description="Private key of the certificate (PEM).")
    header_timeout_s: float = Field(
        10.0, gt=0, description="Time limit for receiving the header of a request."
    )
    body_timeout_s: float = Field(
        30.0, gt=0, description="Time limit for each 64 KiB of a request body; beyond it: 408."
    )
    max_live_clients: int = Field(
        32, ge=1, description="Maximum number of WebSocket clients; beyond it: 503."
    )
    curve_keypair: Path | None = Field(
        None, description="Secret CURVE key file of this service, created by `senoscope keys curve`."
    )
    stream_server_key: str | None = Field(
        None,
        description="Public CURVE key of the frame publisher, or its file; turns encryption of frames on.",
    )
    results_allowed_keys: Path | None = Field(
        None,
        description="Folder of the public CURVE keys (*.key) of allowed subscribers to results; turns their "
        "encryption on. Needs --curve-keypair.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Format of log lines: for people, or JSON."
    )

    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="OTLP/HTTP collector for traces, for example http://127.0.0.1:4318; empty: none. "
        "Needs the extra `otel`.",
    )

    # Importing pydantic-settings would take a third of the time until a mistake is reported.
    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        variables = {name.upper(): value for name, value in os.environ.items()}
        named = {name: f"{ENV_PREFIX}{name.upper()}" for name in cls.model_fields}
        return {name: variables[v] for name, v in named.items() if v in variables} | given

    @field_validator("stream", "results")
    @classmethod
    def _check_endpoint(cls, endpoint: str) -> str:
        if endpoint and not _ENDPOINT.fullmatch(endpoint):
            raise ValueError(f"{endpoint!r} is not a valid ZeroMQ endpoint, for example tcp://127.0.0.1:5555")
        return endpoint

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        return checked_database_url(url)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(
                "--tls-cert and --tls-key belong together: set both the certificate and its private key"
            )
        if self.results_allowed_keys is not None and self.curve_keypair is None:
            raise ValueError(
                "--results-allowed-keys needs --curve-keypair, the service's own key (`senoscope keys curve`)"
            )
        if self.watch is not None and self.database_url == OFF:
            raise ValueError(
                "--watch needs a run log (--database-url), which records the files that were classified"
            )
        watch, archive = self.watch, self.archive
        if watch is not None and archive is not None and archive.resolve().is_relative_to(watch.resolve()):
            raise ValueError("--archive must not be in the folder of --watch: its files would be classified")
        return self

    @property
    def instrument_name(self) -> str:
        """Name of the microscope, unique among the services that share a run log."""
        if self.instrument:
            return self.instrument
        from senoscope_client.security.loopback import is_local_endpoint

        if self.stream and not is_local_endpoint(self.stream):
            return self.stream
        # A local endpoint does not identify a machine.
        return f"{self.stream or f'port {self.port}'} at {socket.gethostname()}"

    @property
    def max_upload_bytes(self) -> int:
        """Maximum size of a request body, in bytes."""
        return self.max_upload_mib * _MIB

    @property
    def gate_limits(self) -> GateLimits:
        """How far a lower precision may deviate from fp32."""
        from senoscope.engine.gate import GateLimits

        return GateLimits(
            max_abs_probability=self.gate_max_probability,
            p99_abs_probability=self.gate_p99_probability,
            flip_margin=self.gate_flip_margin,
            min_gradcam_iou=self.gate_min_gradcam_iou,
            max_auc_loss=self.gate_max_auc_loss,
        )

    @property
    def image_limits(self) -> Limits:
        """Limits of the image reader."""
        from senoscope_client.images.reader import Limits

        return Limits(max_fovs=self.max_fovs, max_decoded_bytes=self.max_decoded_mib * _MIB)


def settings_command(body: Callable[[Settings], None]) -> Callable[..., None]:
    """Create a Typer command with one option per setting.

    An option that is not given is read from its ``SENOSCOPE_*`` variable, or has its default.
    """

    def command(**options: Any) -> None:
        body(Settings(**{name: value for name, value in options.items() if value is not None}))

    annotations = {}
    for name, field in Settings.model_fields.items():
        has_default = field.default_factory is None and field.default not in (None, "")
        default = f"default: {field.default}; " if has_default else ""
        option = typer.Option(
            help=f"{field.description} ({default}{ENV_PREFIX}{name.upper()})", show_default=False
        )
        annotations[name] = Annotated[field.annotation | None, option]  # type: ignore[operator]
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, kind, default=None, annotation=a) for name, a in annotations.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = annotations
    command.__name__ = body.__name__
    command.__doc__ = body.__doc__
    return command
