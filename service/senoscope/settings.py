"""All settings of the service, read once from the command line and ``SENOSCOPE_*`` variables."""

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

from senoscope.engine.locations import default_models_dir
from senoscope.engine.options import Device
from senoscope.runlog.places import checked_database_url, default_database_url
from senoscope_client.models.choices import CamMode

if TYPE_CHECKING:
    from senoscope_client.images.reader import Limits

ENV_PREFIX: Final = "SENOSCOPE_"
"""Of the variable that stands for an option."""
_MIB = 1024 * 1024
_ENDPOINT = re.compile(r"tcp://(\[[^\]\s]+\]|[^:/\s]+):(\d{1,5}|\*)|ipc://\S+")


class Settings(BaseModel):
    """Settings of ``senoscope serve``; each field's description is its help on the command line.

    What is not given is taken from its ``SENOSCOPE_*`` variable, else it is the default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: str = Field("starter", description="Ensemble: a name in --models-dir, or the path of its folder.")
    models_dir: Path = Field(default_factory=default_models_dir, description="Where named ensembles live.")
    device: Device = Field(
        "auto", description="auto takes a GPU where there is one that works; the other two insist."
    )
    load_timeout_s: float = Field(
        300.0, gt=0, description="Time in which an ensemble must be loaded, verified and warmed up."
    )
    threads: int | None = Field(None, ge=1, description="CPU cores for the networks; all by default.")
    host: str = Field("127.0.0.1", description="Address that HTTP and WebSocket listen on.")
    port: int = Field(8750, ge=0, le=65535, description="Their port; 0 takes a free one.")
    stream: str = Field(
        "tcp://127.0.0.1:5555",
        description="ZeroMQ endpoint of the acquisition PC's frame publisher; empty: no stream.",
    )
    instrument: str = Field(
        "",
        max_length=64,
        description="Name of the microscope that this service belongs to, where several share a run log; a "
        "calibrated intensity range is kept under it. Default: the address of the stream.",
    )
    results: str = Field(
        "tcp://127.0.0.1:5556", description="ZeroMQ endpoint that results are published at; empty: none."
    )
    results_cam: CamMode = Field("grid", description="Grad-CAM that published results carry inline.")
    deadline_ms: float = Field(
        24.0, gt=0, description="From a frame's arrival to its result; results that took longer say so."
    )
    live_queue: int = Field(
        8, ge=1, description="Live frames that may wait; one more, and the oldest is dropped."
    )
    batch_queue: int = Field(1024, ge=1, description="FOVs of posted stacks that may wait; beyond that, 503.")
    batch_size: int = Field(
        8,
        ge=1,
        le=64,
        description="Most FOVs of a stack computed at once; fewer, down to one, where they would make a live "
        "frame late.",
    )
    drain_s: float = Field(
        10.0, ge=0, description="When stopped: how long frames and stacks that wait may still be computed."
    )
    fallback: Literal["none", "cpu"] = Field(
        "none", description="Where to go on when the GPU fails twice running; none: stop being ready."
    )
    max_upload_mib: int = Field(256, ge=1, description="Largest body of a request.")
    max_decoded_mib: int = Field(512, ge=1, description="Largest stack that a body may unpack to.")
    request_memory_mib: int = Field(
        1024,
        ge=1,
        description="Memory for bodies and pixels of all requests together; beyond it, 503.",
    )
    max_fovs: int = Field(512, ge=1, description="Most FOVs in one request.")
    remember_mib: int = Field(
        64,
        ge=1,
        description="Memory for recent FOVs, pixels and maps, which Grad-CAM pictures are drawn from.",
    )
    database_url: str = Field(
        default_factory=default_database_url,
        description="Run log: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE; none turns it off. "
        "Default: runlog.sqlite3 in the user's data folder.",
    )
    keep_days: float | None = Field(None, gt=0, description="Forget logged results after so many days.")
    keep_mib: float | None = Field(
        None, ge=1, description="Forget the oldest logged results where the log grows beyond this."
    )
    archive: Path | None = Field(
        None,
        description="Folder that the stream's pixels are kept in, one OME-TIFF per series; default: none.",
    )
    rules: Path | None = Field(
        None,
        description="File of rules (TOML) that results are judged by; `senoscope rules check` explains one. "
        "Decisions are sent and logged; nothing is moved.",
    )
    live_backlog: int = Field(
        64, ge=1, description="Results that a WebSocket client may lag behind before it loses the oldest."
    )
    api_keys: Path | None = Field(
        None, description="File of API keys, made by `senoscope keys new`; with it every request needs one."
    )
    api_key: str | None = Field(
        None,
        min_length=32,
        pattern=r"^[A-Za-z0-9._~-]*$",
        repr=False,
        description="One API key with all scopes; better in the variable, for others can see command lines.",
    )
    insecure: bool = Field(
        False, description="Serve beyond this machine without API keys, publish there without CURVE."
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM); with it HTTP is HTTPS.")
    tls_key: Path | None = Field(None, description="Its private key (PEM).")
    header_timeout_s: float = Field(
        10.0, gt=0, description="Time in which the head of a request must be there."
    )
    body_timeout_s: float = Field(
        30.0, gt=0, description="Time that a body may take for each 64 KiB, beyond which it is cut off (408)."
    )
    max_live_clients: int = Field(32, ge=1, description="WebSocket clients at once; one more gets 503.")
    curve_keypair: Path | None = Field(
        None, description="This service's CURVE secret file, made by `senoscope keys curve`."
    )
    stream_server_key: str | None = Field(
        None, description="The frame publisher's public CURVE key, or its file; with it frames are encrypted."
    )
    results_allowed_keys: Path | None = Field(
        None,
        description="Folder of the public CURVE keys (*.key) that may subscribe to results; "
        "with it results are encrypted. Needs --curve-keypair.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Log lines for people or for machines."
    )

    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="OTLP/HTTP collector that traces go to, such as http://127.0.0.1:4318; empty: none. "
        "Needs the extra `otel`.",
    )

    # Importing pydantic-settings for this would take a third of the time in which a mistake is reported.
    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        variables = {name.upper(): value for name, value in os.environ.items()}
        named = {name: f"{ENV_PREFIX}{name.upper()}" for name in cls.model_fields}
        return {name: variables[v] for name, v in named.items() if v in variables} | given

    @field_validator("stream", "results")
    @classmethod
    def _is_endpoint(cls, endpoint: str) -> str:
        if endpoint and not _ENDPOINT.fullmatch(endpoint):
            raise ValueError(f"{endpoint!r} is no ZeroMQ endpoint; one looks like tcp://127.0.0.1:5555")
        return endpoint

    @field_validator("database_url")
    @classmethod
    def _is_run_log(cls, url: str) -> str:
        return checked_database_url(url)

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key belong together: a certificate and its private key")
        if self.results_allowed_keys is not None and self.curve_keypair is None:
            raise ValueError(
                "--results-allowed-keys needs --curve-keypair, the service's own key (`senoscope keys curve`)"
            )
        return self

    @property
    def instrument_name(self) -> str:
        """The name that identifies this service's microscope among those that share a run log."""
        if self.instrument:
            return self.instrument
        from senoscope_client.security.loopback import is_local_endpoint

        if self.stream and not is_local_endpoint(self.stream):
            return self.stream
        # Every machine has such an address.
        return f"{self.stream or f'port {self.port}'} at {socket.gethostname()}"

    @property
    def max_upload_bytes(self) -> int:
        """Largest body of a request, in bytes."""
        return self.max_upload_mib * _MIB

    @property
    def image_limits(self) -> Limits:
        """What the image reader may unpack."""
        from senoscope_client.images.reader import Limits

        return Limits(max_fovs=self.max_fovs, max_decoded_bytes=self.max_decoded_mib * _MIB)


def settings_command(body: Callable[[Settings], None]) -> Callable[..., None]:
    """A Typer command that takes every setting as an option, so that the two lists cannot differ.

    An option that is not given falls back to its ``SENOSCOPE_*`` variable, then to its default.
    """

    def command(**options: Any) -> None:
        body(Settings(**{name: value for name, value in options.items() if value is not None}))

    parameters, annotations = [], {}
    for name, field in Settings.model_fields.items():
        known = field.default_factory is None and field.default not in (None, "")
        default = f"default: {field.default}; " if known else ""
        option = typer.Option(
            help=f"{field.description} ({default}{ENV_PREFIX}{name.upper()})", show_default=False
        )
        annotations[name] = Annotated[field.annotation | None, option]  # type: ignore[operator]
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotations[name]
            )
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = annotations
    command.__name__ = body.__name__
    command.__doc__ = body.__doc__
    return command
