"""``senoscope demo``: the service and a simulated microscope, each a process of its own, watched live."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senoscope.commands.command_line import exiting_on_sigterm
from senoscope.runlog.places import default_database_url
from senoscope_client.errors import NotReady

# NumPy and the HTTP client are imported once the arguments are known to be right.
if TYPE_CHECKING:
    from rich.console import Console

    from senoscope.commands.demo_view import DemoScore, LiveTable
    from senoscope.settings import Settings
    from senoscope_client.http.client import Client
    from senoscope_client.http.live import LiveResults
    from senoscope_client.models.status import SeriesStatus, StreamStatus

_READY_TIMEOUT_S = 120.0
# Exit statuses of a process that ends by the signal; of one that is terminated, on Windows.
_KILLED = {1} if sys.platform == "win32" else {-signal.SIGTERM, -signal.SIGINT}
_QUIET_S = 20.0  # where the scan's end is lost: no result for so long, and what is missing is lost too
# The simulated microscope scans somewhat slower than the service can follow.
_SHARE_OF_CAPACITY = 0.75
_FASTEST_HZ = 10.0
# The demo is for this machine alone, whatever the service here is set up with.
_NOT_FOR_DEMO = (
    *("SENOSCOPE_HOST", "SENOSCOPE_API_KEYS", "SENOSCOPE_API_KEY", "SENOSCOPE_TLS_CERT", "SENOSCOPE_TLS_KEY"),
    *("SENOSCOPE_CURVE_KEYPAIR", "SENOSCOPE_STREAM_SERVER_KEY", "SENOSCOPE_RESULTS_ALLOWED_KEYS"),
)


@exiting_on_sigterm()  # its children are ended, too
def demo(
    frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many FOVs; default: until Ctrl-C.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="FOVs per second; default: what this machine can follow.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 takes a free one.")] = 8750,
    seed: Annotated[int, typer.Option(min=0, help="Of the synthetic FOVs.")] = 2023,
    model: Annotated[str | None, typer.Option(help="Ensemble; default: the starter ensemble.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Where named ensembles live.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda or cpu.")] = None,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Do not open the dashboard; its address is told all the same."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Everything at once: the starter ensemble, the service, and a simulated microscope that scans."""
    from rich.console import Console

    from senoscope.settings import Settings

    given = {"model": model, "models_dir": models_dir, "device": device}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    console = Console(stderr=True)
    began_s = time.perf_counter()
    http_port = _port(port)

    from senoscope.commands.demo_view import DemoScore, LiveTable
    from senoscope.commands.ensembles import ensemble_folder
    from senoscope_client.http.client import Client
    from senoscope_client.models.status import ModelInfo, StreamStatus

    ensemble_folder(settings, console)
    making_s = time.perf_counter() - began_s
    frames_at, results_at = (f"tcp://127.0.0.1:{_port(0)}" for _ in range(2))
    url = f"http://127.0.0.1:{http_port}"
    serve = ["serve", "--port", str(http_port), "--stream", frames_at, "--results", results_at]
    serve += [*_settings_options(settings), *(["--device", device] if device else [])]
    with _process("service", [sys.executable, "-m", "senoscope.cli", *serve]) as service:
        with console.status("starting the service: verifying, loading and warming up the networks"):
            client = Client(url)
            _wait_ready(client, service)
        ready_s = time.perf_counter() - began_s - making_s
        in_use = ModelInfo.model_validate(client.model())
        warning = "" if in_use.manifest["for_science"] else ", not for science"
        rate_hz = rate or min(_FASTEST_HZ, _SHARE_OF_CAPACITY * 1000 / in_use.engine.compute_ms)
        publish = ["publish", "--synthetic", "--endpoint", frames_at, "--rate", f"{rate_hz:.4f}"]
        publish += [*_scan_options(in_use.manifest["input"], seed, frames), *_pace_options(rate, url)]
        score = DemoScore(seed)
        title = f"Senoscope live: synthetic FOVs, ensemble {in_use.name}{warning}"
        table = LiveTable(console, score, total=frames, title=title)

        def announce() -> None:
            console.print(
                f"The dashboard is at {url} ({in_use.engine.reason}); scanning {rate_hz:.2g} FOVs per "
                "second.",
                soft_wrap=True,
            )
            if not no_browser:
                _open_browser(url)

        interrupted = _scan(client, service, publish, score, table, console, frames, announce)
        stream = StreamStatus.model_validate(client.stream())
    sent = frames
    if sent is None or interrupted:
        sent = max(_frames_sent(stream), score.classified)
    summary = {
        **score.summary(sent, stream),
        "model": settings.model,
        "device": in_use.engine.device,
        "rate_hz": round(rate_hz, 4),
        "making_ensemble_s": round(making_s, 1),
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
    """Show the dashboard where there is a screen; a browser within the terminal would hide the table."""
    if sys.platform in {"win32", "darwin"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        with suppress(webbrowser.Error):
            webbrowser.open(url)


def _port(wanted: int) -> int:
    """That port if nobody listens there, or a free one for 0; asked before anything long begins."""
    with socket.socket() as probe:
        if os.name == "posix":  # where it means: though connections to an earlier listener linger
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise OSError(f"port {wanted} is in use; --port takes another") from error
        return int(probe.getsockname()[1])


class _Child(subprocess.Popen[bytes]):
    """A child process, which may be asked to end before it can handle that."""

    _asked_to_end = False

    def ask_to_end(self) -> None:
        """Send it SIGTERM; returns at once."""
        self._asked_to_end = True
        self.terminate()

    @property
    def killed(self) -> bool:
        """Whether it ended as it was asked to, without having handled that."""
        return self._asked_to_end and self.poll() in _KILLED

    @property
    def failed(self) -> bool:
        """Whether it ended, and not as it should."""
        return self.poll() not in {None, 0} and not self.killed


@contextmanager
def _process(name: str, command: list[str]) -> Iterator[_Child]:
    """A child process whose output is shown only if it fails."""
    with tempfile.TemporaryFile() as log:
        # Its own group, so that Ctrl-C reaches the demo alone, which then ends its children in order.
        group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        group["env"] = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_DEMO}
        process = _Child(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **group)
        try:
            yield process
            failed = process.failed
        except BaseException:
            failed = process.failed
            raise
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if failed:
                log.seek(0)
                tail = log.read().decode(errors="replace").splitlines()[-20:]
                print(f"--- the {name}'s last words ---", *tail, sep="\n", file=sys.stderr)


def _wait_ready(client: Client, service: subprocess.Popen[bytes]) -> None:
    from senoscope_client.errors import Unreachable

    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while service.poll() is None and time.monotonic() < deadline_s:
        try:
            if client.ready().ready:
                return
        except Unreachable:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise NotReady("the service did not become ready")


def _scan(
    client: Client,
    service: _Child,
    publish: list[str],
    score: DemoScore,
    table: LiveTable,
    console: Console,
    frames: int | None,
    announce: Callable[[], None],
) -> bool:
    """Let the microscope scan until its last frame has been shown; whether it was interrupted."""
    command = [sys.executable, "-m", "senoscope_client.cli", *publish]
    interrupted = False
    try:
        announce()
        with client.live(timeout_s=0.5) as results, _process("microscope", command) as microscope, table:
            try:
                _watch(client, results, microscope, service, score, table, frames)
            except KeyboardInterrupt:
                interrupted = True
                console.print("stopping: waiting for the frames on their way")
                microscope.ask_to_end()
                _watch(client, results, microscope, service, score, table, None)
    except KeyboardInterrupt:
        if interrupted:  # the second time
            raise
        return True  # before the first frame
    return interrupted


def _watch(
    client: Client,
    results: LiveResults,
    microscope: _Child,
    service: _Child,
    score: DemoScore,
    table: LiveTable,
    frames: int | None,
) -> None:
    from senoscope_client.models.status import StreamStatus

    quiet_since_s = None
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
                stream = StreamStatus.model_validate(client.stream())
                never_began = microscope.killed and not _series(stream)
                if never_began or _is_complete(stream, score) or time.monotonic() - quiet_since_s > _QUIET_S:
                    return
        else:
            score.add(result)
            table.show(result)
            quiet_since_s = None


def _settings_options(settings: Settings) -> list[str]:
    options = ["--model", settings.model, "--models-dir", str(settings.models_dir)]
    if settings.database_url == default_database_url():  # synthetic results have no place among real ones
        options += ["--database-url", default_database_url("demo")]
    return options


def _scan_options(model_input: dict[str, Any], seed: int, frames: int | None) -> list[str]:
    size = ["--height", str(model_input["height"]), "--width", str(model_input["width"])]
    return [*size, "--seed", str(seed), "--json", *(["--frames", str(frames)] if frames else [])]


def _pace_options(rate: float | None, url: str) -> list[str]:
    """Without a rate that was asked for: wait for the service, for it may slow down after it was measured."""
    return [] if rate else ["--keep-up", url]


def _series(stream: StreamStatus) -> tuple[SeriesStatus, ...]:
    return stream.receiver.series if stream.receiver is not None else ()


def _is_complete(stream: StreamStatus, score: DemoScore) -> bool:
    """Return whether the end of the scan was received, and all frames before it were classified and shown."""
    series, live = _series(stream), stream.live
    ended = bool(series) and all(one.state == "ended" for one in series)
    done = live.classified + live.dropped + live.failed >= sum(one.received for one in series)
    return ended and done and live.classified <= score.classified


def _frames_sent(stream: StreamStatus) -> int:
    last = [series.last_frame for series in _series(stream)]
    return sum(frame + 1 for frame in last if frame is not None)
