"""``senoscope demo``: run the service and a simulated microscope as processes, and show the results."""

from __future__ import annotations

import json
import os
import sys
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from senoscope.child_process import ChildProcess, child_process, find_port, wait_ready
from senoscope.commands.command_line import exiting_on_sigterm
from senoscope.commands.options import (
    DeviceOption,
    ModelsDirOption,
    PrecisionOption,
    ensemble_folder,
    settings_with,
)
from senoscope.runlog.places import default_database_url
from senoscope_client.errors import NotReady

# NumPy and the HTTP client are imported only after the arguments were checked.
if TYPE_CHECKING:
    from senoscope.commands.demo_view import DemoScore, LiveTable
    from senoscope.settings import Settings
    from senoscope_client.http.client import Client
    from senoscope_client.http.live import LiveResults
    from senoscope_client.models.status import SeriesStatus, StreamStatus

# If the end of the scan was lost: after so long without a result, missing frames count as lost.
_QUIET_S = 20.0
# Fraction of the measured throughput at which the simulated microscope scans.
_SHARE_OF_CAPACITY = 0.75
_FASTEST_HZ = 10.0
# The demo listens on this machine only: settings of a real service must not reach it.
_REMOVED_VARIABLES = (
    *("SENOSCOPE_HOST", "SENOSCOPE_API_KEYS", "SENOSCOPE_API_KEY", "SENOSCOPE_TLS_CERT", "SENOSCOPE_TLS_KEY"),
    *("SENOSCOPE_CURVE_KEYPAIR", "SENOSCOPE_STREAM_SERVER_KEY", "SENOSCOPE_RESULTS_ALLOWED_KEYS"),
)


@exiting_on_sigterm()  # ends the child processes too
def demo(
    frames: Annotated[int | None, typer.Option(min=1, help="Number of FOVs; default: until Ctrl-C.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, help="FOVs per second; default: as fast as this machine can classify them."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 selects a free one.")] = 8750,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic FOVs.")] = 2023,
    model: Annotated[str | None, typer.Option(help="Ensemble; default: the starter ensemble.")] = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Do not open the dashboard in a browser; its address is printed."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run the starter ensemble, the service and a simulated microscope together."""
    from rich.console import Console

    settings = settings_with(model=model, models_dir=models_dir, device=device, precision=precision)
    console = Console(stderr=True)
    began_s = time.perf_counter()
    http_port = find_port(port)

    from senoscope.commands.demo_view import DemoScore, LiveTable
    from senoscope_client.http.client import Client

    ensemble_folder(settings, console)
    build_s = time.perf_counter() - began_s
    frames_at, results_at = (f"tcp://127.0.0.1:{find_port(0)}" for _ in range(2))
    url = f"http://127.0.0.1:{http_port}"
    serve = ["serve", "--port", str(http_port), "--stream", frames_at, "--results", results_at]
    serve += [*_settings_options(settings), *(["--device", device] if device else [])]
    serve += ["--precision", precision] if precision else []
    with child_process("service", "senoscope.cli", serve, _environment()) as service:
        with console.status("starting the service: verifying, loading and warming up the networks"):
            client = Client(url)
            wait_ready(client, service)
        ready_s = time.perf_counter() - began_s - build_s
        in_use = client.model_info()
        warning = "" if in_use.manifest["for_science"] else ", not for science"
        rate_hz = rate or min(_FASTEST_HZ, _SHARE_OF_CAPACITY * 1000 / in_use.engine.compute_ms)
        size = in_use.manifest["input"]
        publish = ["publish", "--synthetic", "--endpoint", frames_at, "--rate", f"{rate_hz:.4f}", "--json"]
        publish += ["--height", str(size["height"]), "--width", str(size["width"]), "--seed", str(seed)]
        publish += ["--frames", str(frames)] if frames else []
        # Without a requested rate, the publisher waits for the service, which may become slower.
        publish += [] if rate else ["--keep-up", url]
        score = DemoScore(seed)
        title = f"Senoscope live: synthetic FOVs, ensemble {in_use.name}{warning}"
        table = LiveTable(console, score, frames, title)

        def announce() -> None:
            console.print(
                f"The dashboard is at {url} ({in_use.engine.reason}); scanning {rate_hz:.2g} FOVs per "
                "second.",
                soft_wrap=True,
            )
            if not no_browser:
                _open_browser(url)

        interrupted = _scan(client, service, publish, table, announce)
        stream = client.stream_status()
    sent = frames
    if sent is None or interrupted:
        last_frames = [series.last_frame for series in _series(stream)]
        sent = max(score.classified, sum(frame + 1 for frame in last_frames if frame is not None))
    summary = {
        **score.summary(sent, stream),
        "model": settings.model,
        "device": in_use.engine.device,
        "precision": in_use.engine.precision,
        "rate_hz": round(rate_hz, 4),
        "making_ensemble_s": round(build_s, 1),
        "start_to_ready_s": round(ready_s, 1),
        "total_s": round(time.perf_counter() - began_s, 1),
    }
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        score.print_summary(console, summary)
    if summary["lost"]:
        raise typer.Exit(1)


def _open_browser(url: str) -> None:
    """Open the dashboard if there is a screen; a browser in the terminal would hide the table."""
    if sys.platform in {"win32", "darwin"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        with suppress(webbrowser.Error):
            webbrowser.open(url)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _REMOVED_VARIABLES}


def _scan(
    client: Client, service: ChildProcess, publish: list[str], table: LiveTable, announce: Callable[[], None]
) -> bool:
    """Run the microscope until its last frame has been shown, and return whether Ctrl-C interrupted it."""
    interrupted = False
    try:
        announce()
        with (
            client.live(timeout_s=0.5) as results,
            child_process("microscope", "senoscope_client.cli", publish, _environment()) as microscope,
            table,
        ):
            try:
                _show_results(client, results, microscope, service, table, table.total)
            except KeyboardInterrupt:
                interrupted = True
                table.console.print("stopping: waiting for the results of frames already sent")
                microscope.request_end()
                _show_results(client, results, microscope, service, table, None)
    except KeyboardInterrupt:
        if interrupted:  # a second Ctrl-C
            raise
        return True  # Ctrl-C before the first frame
    return interrupted


def _show_results(
    client: Client,
    results: LiveResults,
    microscope: ChildProcess,
    service: ChildProcess,
    table: LiveTable,
    frames: int | None,
) -> None:
    quiet_since_s, score = None, table.score
    while frames is None or score.classified < frames:
        try:
            result = next(results)
        except StopIteration:
            raise NotReady("the service stopped") from None
        except TimeoutError:
            if service.poll() is not None:
                raise NotReady("the service ended") from None
            if microscope.poll() is not None:
                if microscope.failed:
                    raise NotReady("the simulated microscope ended") from None
                quiet_since_s = quiet_since_s or time.monotonic()
                stream = client.stream_status()
                never_began = microscope.killed and not _series(stream)
                if never_began or _is_complete(stream, score) or time.monotonic() - quiet_since_s > _QUIET_S:
                    return
        else:
            if result.source.kind == "stream":  # not of a stack that was dropped on the dashboard
                table.show(result)
            quiet_since_s = None


def _settings_options(settings: Settings) -> list[str]:
    options = ["--model", settings.model, "--models-dir", str(settings.models_dir)]
    if settings.database_url == default_database_url():
        # Synthetic results are kept out of the run log of real ones.
        options += ["--database-url", default_database_url("demo")]
    return options


def _series(stream: StreamStatus) -> tuple[SeriesStatus, ...]:
    return stream.receiver.series if stream.receiver is not None else ()


def _is_complete(stream: StreamStatus, score: DemoScore) -> bool:
    """Return whether the end of the scan was received, and all frames before it were classified and shown."""
    series, live = _series(stream), stream.live
    ended = bool(series) and all(one.state == "ended" for one in series)
    done = live.classified + live.dropped + live.failed >= sum(one.received for one in series)
    return ended and done and live.classified <= score.classified
