"""The command ``senoscope-client``: publish frames, watch results, classify files, put load on a service."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from senoscope_client.arguments import (
    DEFAULT_URL,
    add_api_key,
    add_file_options,
    count,
    non_negative,
    positive,
    seconds,
)
from senoscope_client.load.command import add_load, run_load
from senoscope_client.security.loopback import is_local_endpoint
from senoscope_client.simulation.fov_defaults import CHANNELS, HEIGHT, WIDTH

# NumPy, pydantic, sockets and HTTP are imported by the subcommands that need them.
if TYPE_CHECKING:
    from senoscope_client.http.live import LiveResults
    from senoscope_client.models.result import Result
    from senoscope_client.zeromq.subscribers import ResultSubscriber

DEFAULT_STREAM: Final = "tcp://127.0.0.1:5555"
DEFAULT_RESULTS: Final = "tcp://127.0.0.1:5556"

_FAILURE = 1
_MAX_WAITING_FRAMES: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 is success, 1 failure, 2 wrong usage.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default: those of the process.
    """
    parser = command_parser()
    commands = {"publish": _publish, "watch": _watch, "classify": _classify, "load": run_load, "keys": _keys}
    try:
        options = parser.parse_args(argv)
        return commands[options.command](options, parser)
    except SystemExit as end:  # argparse: help, version or wrong usage
        return int(end.code or 0)
    except BrokenPipeError:  # the program that reads the output has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from senoscope_client.errors import SenoscopeError

        # A user can act on these, so that their messages suffice.
        if not isinstance(error, (SenoscopeError, OSError, RuntimeError, ValueError)):
            raise
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return _FAILURE
    except KeyboardInterrupt:
        return 0


class _VersionAction(argparse.Action):
    """Prints the version, which is read only when it is needed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("senoscope"))
        parser.exit()


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; `docs/make` reads it, too."""
    parser = argparse.ArgumentParser(
        prog="senoscope-client", description="Programs for the acquisition PC and for clients of Senoscope."
    )
    parser.add_argument(
        "--version", action=_VersionAction, dest=argparse.SUPPRESS, help="show the version and exit"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    publish = commands.add_parser("publish", help="publish fields of view like a microscope")
    publish.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="TIFF or NPY stacks, or folders of them"
    )
    publish.add_argument("--synthetic", action="store_true", help="publish synthetic fields of view instead")
    publish.add_argument("--endpoint", default=DEFAULT_STREAM, help="to bind (default: %(default)s)")
    publish.add_argument(
        "--instrument", default="simulator", help="name of the microscope (default: %(default)s)"
    )
    publish.add_argument("--series", default="simulated", help="name of the series (default: %(default)s)")
    publish.add_argument(
        "--rate", type=positive, default=1.0, metavar="HZ", help="frames per second (default: %(default)s)"
    )
    publish.add_argument(
        "--keep-up",
        metavar="URL",
        help="address of the service: before each frame, wait until the service has processed the previous "
        "ones, so that none is dropped; --rate is then a maximum",
    )
    add_api_key(publish)
    publish.add_argument(
        "--frames",
        type=count,
        metavar="N",
        help="stop after N frames (default: at the end of the files; never with --synthetic or --loop)",
    )
    publish.add_argument(
        "--height", type=count, default=HEIGHT, help="rows of a field of view (default: %(default)s)"
    )
    publish.add_argument(
        "--width", type=count, default=WIDTH, help="columns of a field of view (default: %(default)s)"
    )
    publish.add_argument("--loop", action="store_true", help="start again after the last file")
    publish.add_argument(
        "--seed", type=non_negative, default=0, help="of synthetic fields of view (default: %(default)s)"
    )
    add_file_options(publish)
    publish.add_argument(
        "--wait-s",
        type=seconds,
        default=30.0,
        help="how long to wait for a subscriber; 0: do not wait (default: %(default)s)",
    )
    publish.add_argument("--json", action="store_true", help="print a summary as JSON at the end")
    publish.add_argument(
        "--curve-keypair",
        type=Path,
        metavar="FILE",
        help="encrypt the frames with the .key_secret file of this publisher",
    )
    publish.add_argument(
        "--allowed-keys",
        type=Path,
        metavar="DIR",
        help="accept only subscribers whose .key files are in this folder",
    )
    publish.add_argument(
        "--insecure", action="store_true", help="bind beyond this machine without --curve-keypair"
    )

    watch = commands.add_parser("watch", help="show results as they are made")
    source = watch.add_mutually_exclusive_group()
    source.add_argument("--url", default=DEFAULT_URL, help="of the service (default: %(default)s)")
    source.add_argument(
        "--zmq",
        nargs="?",
        const=DEFAULT_RESULTS,
        metavar="ENDPOINT",
        help="receive results over ZeroMQ (default: %(const)s)",
    )
    add_api_key(watch)
    watch.add_argument(
        "--server-key", metavar="KEY", help="with --zmq: the service's .key file, or its public key"
    )
    watch.add_argument(
        "--curve-keypair",
        type=Path,
        metavar="FILE",
        help="with --server-key: the .key_secret file of this subscriber",
    )
    watch.add_argument("--count", type=count, metavar="N", help="stop after N results")
    watch.add_argument("--timeout-s", type=seconds, help="fail if there is no result for so many seconds")
    watch.add_argument("--json", action="store_true", help="one JSON result per line")

    classify = commands.add_parser("classify", help="let the service classify files")
    classify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="TIFF or NPY stack")
    classify.add_argument("--url", default=DEFAULT_URL, help="of the service (default: %(default)s)")
    add_api_key(classify)
    add_file_options(classify)
    classify.add_argument(
        "--cam", choices=("none", "grid", "png"), default="none", help="Grad-CAM in the JSON"
    )
    classify.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show the progress of each file on stderr (default: on a terminal)",
    )
    form = classify.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON result per line")
    form.add_argument("--csv", action="store_true", help="a CSV table")

    add_load(commands)

    keys = commands.add_parser("keys", help="create a CURVE key pair, for encrypted ZeroMQ")
    keys.add_argument("directory", type=Path, metavar="DIR", help="folder of its two files")
    keys.add_argument("--name", required=True, help="of the files: NAME.key and NAME.key_secret")
    return parser


def _publish(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from senoscope_client.simulation.microscope import FrameSource, MosaicScan, run
    from senoscope_client.zeromq.frame_publisher import FramePublisher

    if options.synthetic == bool(options.paths):
        parser.error("publish needs either --synthetic or the files to send")
    if not (options.curve_keypair or options.insecure or is_local_endpoint(options.endpoint)):
        parser.error(
            f"frames published at {options.endpoint} can be received by every machine on the network; "
            "encrypt them with --curve-keypair, or pass --insecure"
        )
    source: FrameSource
    warnings = _FileWarnings(parser.prog)
    if options.synthetic:
        source = MosaicScan(options.seed, frames=options.frames, height=options.height, width=options.width)
    else:
        from senoscope_client.images.reader import FovSpec
        from senoscope_client.simulation.replay import Replay

        source = Replay(
            options.paths,
            frames=options.frames,
            loop=options.loop,
            axes=options.axes,
            channels=options.channels,
            spec=FovSpec(CHANNELS, options.height, options.width),
            on_warning=warnings.add,
        )
    publisher = FramePublisher(
        options.endpoint,
        options.instrument,
        curve_keypair=options.curve_keypair,
        allowed_keys=options.allowed_keys,
    )
    with _stop_on_signal() as stop, publisher:
        if options.wait_s and not _wait_for_subscriber(publisher.wait_for_subscriber, options.wait_s, stop):
            if stop.is_set():
                return 0
            print(
                f"{parser.prog}: no subscriber connected to {publisher.endpoint} within "
                f"{options.wait_s:g} s. Start the service, or do not wait for it: --wait-s 0",
                file=sys.stderr,
            )
            return _FAILURE
        may_send = _is_service_idle(options.keep_up, options.api_key) if options.keep_up else None
        summary = run(publisher, source, options.rate, series_id=options.series, stop=stop, may_send=may_send)
    warnings.summarize()
    if options.json:
        print(
            json.dumps(
                {**asdict(summary), "series_uid": str(summary.series_uid), "warnings": warnings.document()}
            )
        )
    else:
        print(f"{summary.sent} frames sent in {summary.seconds:.1f} s, {summary.late} of them late")
    return 0


class _FileWarnings:
    """Warnings about files: prints the first of each kind at once, and the number of others at the end."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._files: dict[str, list[Path]] = {}

    def add(self, file: Path, text: str) -> None:
        files = self._files.setdefault(text, [])
        files.append(file)
        if len(files) == 1:
            print(f"{self._program}: {file}: {text}", file=sys.stderr, flush=True)

    def summarize(self) -> None:
        for text, files in self._files.items():
            if len(files) > 1:
                print(f"{self._program}: {len(files) - 1} more files: {text}", file=sys.stderr)

    def document(self) -> list[dict[str, object]]:
        return [{"warning": text, "files": list(map(str, files))} for text, files in self._files.items()]


def _is_service_idle(url: str, api_key: str | None) -> Callable[[], bool]:
    """Return a function that returns whether the service has few enough waiting frames for another one."""
    from senoscope_client.http.client import Client

    client = Client(url, api_key=api_key)
    return lambda: client.stream_status().live.waiting <= _MAX_WAITING_FRAMES


def _watch(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if options.zmq is None and (options.server_key or options.curve_keypair):
        parser.error("--server-key and --curve-keypair require --zmq; a WebSocket uses --api-key")
    from senoscope_client.tables import LINE_HEADING, result_line

    shown = 0
    source: ResultSubscriber | LiveResults
    if options.zmq is None:
        from senoscope_client.http.live import LiveResults

        source = LiveResults(options.url, timeout_s=options.timeout_s, api_key=options.api_key)
    else:
        from senoscope_client.zeromq.subscribers import ResultSubscriber

        keys = {"server_key": options.server_key, "curve_keypair": options.curve_keypair}
        source = ResultSubscriber(options.zmq, timeout_s=options.timeout_s, **keys)
    with source as results:
        if not options.json:
            print(LINE_HEADING, flush=True)
        for result in results:
            print(
                result.model_dump_json(exclude_none=True) if options.json else result_line(result), flush=True
            )
            shown += 1
            if shown == options.count:
                return 0
    print("the service has stopped", file=sys.stderr)
    return 0 if options.count is None else _FAILURE


def _classify(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from senoscope_client.errors import SenoscopeError
    from senoscope_client.http.client import Client
    from senoscope_client.tables import LINE_HEADING, result_line, results_csv

    results: list[Result] = []
    failed = False
    with Client(options.url, api_key=options.api_key) as client:
        for n, path in enumerate(options.files, 1):
            try:
                with _progress(options, f"{n}/{len(options.files)} {path.name}", path) as progress:
                    response = client.classify_stack(
                        path, options.cam, options.axes, options.channels, progress
                    )
            except (SenoscopeError, OSError) as error:
                # The remaining files are classified all the same.
                print(f"{parser.prog}: {path}: {error}", file=sys.stderr)
                failed = True
                continue
            for text in response.warnings:
                print(f"{parser.prog}: {path}: {text}", file=sys.stderr)
            results.extend(response.results)
            if options.json:
                for result in response.results:
                    print(result.model_dump_json(exclude_none=True), flush=True)
    if options.csv:
        sys.stdout.write(results_csv(results))
    elif not options.json and results:
        print(LINE_HEADING, *map(result_line, results), sep="\n")
    return _FAILURE if failed else 0


def _progress(
    options: argparse.Namespace, title: str, path: Path
) -> contextlib.AbstractContextManager[Callable[[int, int], None] | None]:
    from senoscope_client.http.progress import StackProgress

    wanted = sys.stderr.isatty() if options.progress is None else options.progress
    if not wanted:
        return contextlib.nullcontext()
    return StackProgress(sys.stderr, title, path.name, options.url, options.api_key)


def _keys(options: argparse.Namespace, _: argparse.ArgumentParser) -> int:
    from senoscope_client.zeromq.curve_keys import create_keypair

    public, secret = create_keypair(options.directory, options.name)
    print(f"{public}  public: copy it to the other machine\n{secret}  secret: keep it on this machine")
    return 0


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Provide an event that is set by SIGINT and SIGTERM, so that an open series is ended properly."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    kinds = [signal.SIGINT, signal.SIGTERM]
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in kinds}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _wait_for_subscriber(wait: Callable[[float], bool], wait_s: float, stop: threading.Event) -> bool:
    slice_s = 0.2
    for _ in range(max(1, math.ceil(wait_s / slice_s))):
        if stop.is_set():
            return False
        if wait(min(slice_s, wait_s)):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
