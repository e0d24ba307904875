"""``senoscope doctor``: check the installation and report problems with their remedies."""

from __future__ import annotations

import json
import platform
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from senoscope.commands.options import (
    DeviceOption,
    ModelOption,
    ModelsDirOption,
    PrecisionOption,
    settings_with,
)

# Each check imports what it needs, so that mistakes in the arguments are reported without ONNX Runtime.
if TYPE_CHECKING:
    from senoscope.bench.comparison import InUse
    from senoscope.bench.passport import Passport
    from senoscope.engine import Ensemble
    from senoscope.settings import Settings

Verdict = Literal["ok", "note", "fail"]
_COLOURS = {"ok": "green", "note": "yellow", "fail": "red"}


class Finding(NamedTuple):
    """One line of the report."""

    topic: str
    verdict: Verdict
    text: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    model: ModelOption = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    port: Annotated[int | None, typer.Option(help="HTTP port to check.")] = None,
    stream: Annotated[str | None, typer.Option(help="Endpoint of the frame publisher to check.")] = None,
    passport: Annotated[
        Path | None,
        typer.Option(
            help="Passport of `senoscope bench` to compare with; default: the last one in the user's data "
            "folder."
        ),
    ] = None,
) -> None:
    """Check versions, providers, GPU, ensemble, port and stream; exit 1 if the service cannot run.

    Also reports what changed since the last `senoscope bench`.
    """
    from rich.console import Console

    settings = settings_with(
        model=model, models_dir=models_dir, device=device, precision=precision, port=port, stream=stream
    )
    findings = []
    console = Console()
    in_use: list[InUse] = []
    checks = (_versions, _hardware, _devices, partial(_ensemble, in_use), _port, _stream)
    for check in (*checks, partial(_bench, in_use, passport)):
        finding = check(settings)
        findings.append(finding)
        if not as_json:
            colour = _COLOURS[finding.verdict]
            console.print(
                f"[{colour}]{finding.verdict:>4}[/{colour}]  [bold]{finding.topic}[/bold]  ", end=""
            )
            console.print(finding.text, highlight=False, markup=False)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


def _versions(_: Settings) -> Finding:
    from senoscope.bench.machine import installed_versions

    found = installed_versions().items()
    return Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in found))


def _hardware(_: Settings) -> Finding:
    from senoscope.engine.sessions import usable_cores

    return Finding("hardware", "ok", f"{platform.platform()}, {usable_cores()} usable cores")


def _devices(settings: Settings) -> Finding:
    import onnxruntime as ort

    from senoscope.engine.devices import DEVICES

    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in ort.get_available_providers())
    problems = {name: problem for name, row in DEVICES.items() if (problem := row.problem()) is not None}
    missing = [name for name in problems if DEVICES[name].automatic]
    verdict: Verdict = "fail" if settings.device in problems else "note" if missing else "ok"
    found = "; ".join(f"--device {name}: {problems.get(name, 'works')}" for name in DEVICES)
    return Finding("devices", verdict, f"{found}; providers of ONNX Runtime: {providers}")


def _ensemble(in_use: list[InUse], settings: Settings) -> Finding:
    """Load the ensemble, and append how it is computed to ``in_use``."""
    from senoscope.bench.comparison import InUse
    from senoscope.engine import Ensemble
    from senoscope.starter.locate import require_ensemble

    try:
        directory = require_ensemble(settings.model, settings.models_dir)
        if directory is None:
            return Finding(
                "ensemble",
                "note",
                f"the starter ensemble is not in {settings.models_dir} yet; "
                "`demo`, `serve` and `classify` build it",
            )
        with Ensemble.load(
            directory,
            device=settings.device,
            precision=settings.precision,
            gate=settings.gate_limits,
            threads=settings.threads,
        ) as ensemble:
            facts = ensemble.describe()
            name = f"{ensemble.manifest.name} {ensemble.manifest.version}"
            precision = _describe_precision(ensemble)
            in_use.append(InUse(ensemble.digest, ensemble.device, ensemble.precision))
    except Exception as error:  # the other checks must still run
        return Finding("ensemble", "fail", str(error))
    text = (
        f"{name}: hashes and test vectors are correct; {facts['device']} ({facts['reason']}), "
        f"{facts['compute_ms']:.1f} ms per field of view; {precision}"
    )
    return Finding("ensemble", "note" if facts["warnings"] else "ok", "; ".join([text, *facts["warnings"]]))


def _describe_precision(ensemble: Ensemble) -> str:
    """Return the precision, what the gate measured, and rejections that are not among the warnings."""
    parts = [f"computes in {ensemble.precision}"]
    if ensemble.figures is not None:
        found = ensemble.figures.ensemble
        parts[0] += (
            f", within {found.max_abs_probability:.2g} of fp32 on {found.fovs} reference fields of view "
            f"(Grad-CAM overlap {found.gradcam_iou:.3f})"
        )
    texts = [one.text(ensemble.precision) for one in ensemble.rejected]
    return "; ".join([*parts, *(text for text in texts if text not in ensemble.warnings)])


def _bench(in_use: list[InUse], path: Path | None, _: Settings) -> Finding:
    """Compare this machine with its passport."""
    from senoscope.bench.comparison import changes_since
    from senoscope.bench.machine import Machine
    from senoscope.bench.passport import PASSPORT_NAME, Passport, PassportError, default_folder

    try:
        passport = Passport.read(path or default_folder() / PASSPORT_NAME)
    except FileNotFoundError as error:
        missing = f"there is no passport {error.filename}"
        return Finding("bench", "note", f"{missing}; `senoscope bench` measures this machine")
    except PassportError as error:
        return Finding("bench", "note", str(error))
    changes = changes_since(passport, Machine.this(), in_use[0] if in_use else None)
    if not changes:
        return Finding("bench", "ok", f"{_measured(passport)}; nothing changed since then")
    text = f"{_measured(passport)}; changed since then: {'; '.join(changes)}; run `senoscope bench` again"
    return Finding("bench", "note", text)


def _measured(passport: Passport) -> str:
    alone = passport.streams[0]
    latency = "no results" if alone.latency_ms is None else f"p99 {alone.latency_ms.p99:.1f} ms"
    quick = ", roughly" if passport.quick else ""
    return f"measured on {passport.made_at:%Y-%m-%d}{quick}: {alone.rate_hz:.3g} FOVs per second, {latency}"


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    try:
        # With the options of the real listener: otherwise Windows lets a busy port be bound twice.
        socket.create_server((settings.host, settings.port)).close()
    except OSError as error:
        running = _status_of_running_service(settings)
        if running is not None:
            return Finding("port", "ok", f"a Senoscope service already listens on {where}: {running}")
        return Finding("port", "note", f"cannot listen on {where}: {error.strerror or error}")
    return Finding("port", "ok", f"{where} is free")


def _status_of_running_service(settings: Settings) -> str | None:
    """Return the status that a Senoscope service at the configured address reports, or None."""
    import httpx

    scheme = "https" if settings.tls_cert else "http"
    try:
        url = f"{scheme}://{settings.host}:{settings.port}/readyz"
        answer = httpx.get(url, timeout=2, verify=False).json()  # noqa: S501 - no secret is sent
        return str(answer["status"]).replace("_", " ")
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _stream(settings: Settings) -> Finding:
    if not settings.stream:
        return Finding("stream", "note", "no stream is configured")

    import zmq

    from senoscope_client.zeromq.curve_keys import CurveClient

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    subscriber = context.socket(zmq.SUB)
    subscriber.setsockopt(zmq.LINGER, 0)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"fov/")
    monitor = subscriber.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    try:
        if settings.stream_server_key:
            CurveClient.load(settings.stream_server_key, settings.curve_keypair).secure(subscriber)
        subscriber.connect(settings.stream)
        if not monitor.poll(1500):
            text = f"no publisher at {settings.stream} now; the service would wait for one"
            return Finding("stream", "note", text)
        if not subscriber.poll(5000):  # heartbeats are sent every second, but a busy machine is late
            text = f"{settings.stream} accepts connections, but sends neither frames nor heartbeats"
            return Finding("stream", "note", text)
        return Finding("stream", "ok", f"receiving from {settings.stream}")
    except (zmq.ZMQError, OSError, ValueError) as error:
        return Finding("stream", "fail", f"{settings.stream}: {error}")
    finally:
        subscriber.disable_monitor()
        subscriber.close(0)
        sys.stdout.flush()
