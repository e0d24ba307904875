"""The subcommand ``senoscope-client load``: put load on a running service, and report its latency."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from senoscope_client.arguments import (
    DEFAULT_URL,
    add_api_key,
    add_file_options,
    count,
    positive,
    seconds,
)

# NumPy, pydantic and HTTP are imported when the subcommand is called.
if TYPE_CHECKING:
    from senoscope_client.http.operations import Operation
    from senoscope_client.load.arrivals import LoadPlan
    from senoscope_client.models.responses import ClassifyResponse

_INTERRUPTED: Final = 130


def add_load(commands: Any) -> None:
    """Add the subcommand to those of the command line."""
    load = commands.add_parser("load", help="put load on a running service, and report its latency")
    load.add_argument(
        "url",
        nargs="?",
        default=DEFAULT_URL,
        metavar="URL",
        help="address of the service (default: %(default)s)",
    )
    add_api_key(load)
    arrivals = load.add_mutually_exclusive_group()
    arrivals.add_argument(
        "--rate",
        type=positive,
        metavar="HZ",
        help="requests per second, sent on time whatever the service does (an open loop); the latency is "
        "counted from the time that a request is due",
    )
    arrivals.add_argument(
        "--concurrency",
        type=count,
        metavar="N",
        default=1,
        help="without --rate: clients that each send a request after the response to the one before (a "
        "closed loop), which hides stalls (default: %(default)s)",
    )
    length = load.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds",
        type=positive,
        metavar="S",
        default=10.0,
        help="send for S seconds (default: %(default)s)",
    )
    length.add_argument("--requests", type=count, metavar="N", help="send N requests instead")
    content = load.add_mutually_exclusive_group()
    content.add_argument(
        "--fovs-per-request",
        type=count,
        metavar="K",
        default=1,
        help="synthetic fields of view in each request (default: %(default)s)",
    )
    content.add_argument("--file", type=Path, metavar="F", help="send this TIFF or NPY stack instead")
    add_file_options(load)
    load.add_argument(
        "--timeout-s",
        type=seconds,
        default=60.0,
        help="time limit for each response, also for the last ones (default: %(default)s)",
    )
    load.add_argument(
        "--max-p99-ms", type=positive, metavar="X", help="exit with 1 if the p99 of the latency exceeds X"
    )
    load.add_argument("--json", action="store_true", help="print the summary as JSON")


def run_load(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Put the load on the service, print the summary and return the exit status."""
    import asyncio

    from senoscope_client.http.auth import authorization_header
    from senoscope_client.http.operations import validate_base_url
    from senoscope_client.load.arrivals import LoadPlan, apply_load

    url = validate_base_url(options.url)
    plan = LoadPlan(options.rate, options.concurrency, options.requests, options.seconds, options.timeout_s)
    operation = _operation(options)
    if not options.json:
        print(_title(options, plan), flush=True)
    summary = asyncio.run(apply_load(url, authorization_header(options.api_key), operation, plan))
    problem = summary.problem(options.max_p99_ms)
    if options.json:
        kind = "closed" if plan.rate_hz is None else "open"
        settings = {
            "url": url,
            "loop": kind,
            "rate_hz": plan.rate_hz,
            "concurrency": plan.concurrency if plan.rate_hz is None else None,
            "fovs_per_request": None if options.file else options.fovs_per_request,
            "max_p99_ms": options.max_p99_ms,
        }
        print(json.dumps({**settings, **summary.document(), "problem": problem}, indent=2))
    else:
        print("\n".join(summary.lines()))
    if summary.interrupted:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    if problem is not None:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
    return 0 if problem is None else 1


def _title(options: argparse.Namespace, plan: LoadPlan) -> str:
    body = options.file or f"{options.fovs_per_request} FOV{'s' * (options.fovs_per_request > 1)}"
    how = f"{plan.concurrency} at a time" if plan.rate_hz is None else f"{plan.rate_hz:g} per second"
    length = f"for {plan.seconds:g} s" if plan.requests is None else f"{plan.requests} in all"
    return f"requests of {body} to {options.url}, {how}, {length}"


def _operation(options: argparse.Namespace) -> Operation[ClassifyResponse]:
    """Return the request to send; the service reports the size of its fields of view."""
    from senoscope_client.http import operations

    # Also with a file: a wrong address or key is reported at once, not as many failed requests.
    shape = _fov_shape(options.url, options.api_key)
    if options.file is not None:
        content: Any = options.file.read_bytes()
    else:
        from senoscope_client.simulation.any_ensemble import fovs_for

        content = fovs_for(shape, options.fovs_per_request)
    operation = operations.classify(content, "none", options.axes, options.channels, None)
    with operation.open_body() as body:
        return replace(operation, open_body=lambda: nullcontext(body))  # encoded once, not for each request


def _fov_shape(url: str, api_key: str | None) -> tuple[int, int, int]:
    """Return channels, rows and columns that the service's ensemble takes."""
    from senoscope_client.errors import Forbidden
    from senoscope_client.http.client import Client
    from senoscope_client.simulation.fov_defaults import CHANNELS, HEIGHT, WIDTH

    with Client(url, api_key=api_key) as client:
        try:
            size = client.model_info().manifest["input"]
        except Forbidden:  # a key that may classify, but not read
            return len(CHANNELS), HEIGHT, WIDTH
    return len(size["channels"]), int(size["height"]), int(size["width"])
