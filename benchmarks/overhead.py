"""Compare the time of a posted FOV, and the cold start, with plainer servers around the same engine.

    python benchmarks/overhead.py [--posts 1500] [--result FILE]
    python benchmarks/overhead.py --start models/starter [--rounds 5] [--result FILE]

The first form posts one field of view again and again over one connection, alternately to each server, which
all run at the same time; the ratios of the medians are the result. The servers:

``senoscope``
    The service with all its protections, with and without the run log.
``bare``
    A FastAPI application that reads the body, decodes it with the same reader, calls the engine in a thread
    and returns the result as JSON. The same uvicorn, with its fastest event loop and parser.
``mosec``
    The same in a worker of mosec, which is no dependency of this project. This row needs an environment::

        python -m venv FOLDER && FOLDER/bin/pip install mosec==0.9.8
        python benchmarks/overhead.py --mosec FOLDER

The second form starts the service and the bare application alternately, and measures the time from the start
of the process to the first answer that an ensemble is ready.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request

_ROOT = Path(__file__).parents[1]
_DEADLINE_S = 120.0
_PATH = "/v1/classify"


def decode(body: bytes, spec: Any) -> npt.NDArray[Any]:
    """Return the fields of view of a posted file."""
    from senoscope_client.images.reader import read_fovs

    return read_fovs(io.BytesIO(body), spec).pixels


def answer_of(prediction: Any) -> dict[str, Any]:
    """Return what the plain servers answer."""
    networks = zip(prediction.networks, map(float, prediction.probabilities), strict=True)
    return {"label": prediction.label, "probability": prediction.probability, "networks": dict(networks)}


def run_bare(model: str, port: int) -> None:
    """Run the bare FastAPI application."""
    import uvicorn
    from starlette.concurrency import run_in_threadpool

    from senoscope.engine import Ensemble
    from senoscope.scheduling.active_ensemble import fov_spec_of

    ensemble = Ensemble.load(Path(model), device="cpu")
    spec = fov_spec_of(ensemble)
    app = FastAPI()

    def classify_body(body: bytes) -> list[dict[str, Any]]:
        return [answer_of(one) for one in ensemble.predict(decode(body, spec))]

    @app.post(_PATH)
    async def classify(request: Request) -> dict[str, Any]:
        return {"results": await run_in_threadpool(classify_body, await request.body())}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    uvicorn.run(app, port=port, log_level="error")


def run_mosec(model: str, port: int) -> None:
    """Run mosec with one worker."""
    sys.argv = [sys.argv[0], "--port", str(port), "--log-level", "error", "--timeout", "60000"]
    from mosec import Server, Worker

    from senoscope.engine import Ensemble
    from senoscope.scheduling.active_ensemble import fov_spec_of

    class Classifier(Worker):
        def __init__(self) -> None:
            super().__init__()
            self.ensemble = Ensemble.load(Path(model), device="cpu")
            self.spec = fov_spec_of(self.ensemble)

        def deserialize(self, data: bytes) -> npt.NDArray[Any]:
            return decode(data, self.spec)

        def forward(self, data: npt.NDArray[Any]) -> dict[str, Any]:
            return {"results": [answer_of(one) for one in self.ensemble.predict(data)]}

    server = Server()
    server.append_worker(Classifier, num=1, start_method="fork", route=_PATH)
    server.run()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, path: str) -> Iterator[float]:
    """Start a server, and yield the seconds until it answered that it is ready."""
    began = time.perf_counter()
    # An environment with mosec finds all other packages here.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not _answers(port, path):
            assert process.poll() is None, f"the server ended: {' '.join(command)}"
            assert time.perf_counter() - began < _DEADLINE_S, f"the server is not ready: {' '.join(command)}"
            time.sleep(0.01)
        yield time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def command_of(
    kind: str, model: str, port: int, folder: Path, python: Path = Path(sys.executable)
) -> list[str]:
    """Return the command that starts a server."""
    if not kind.startswith("senoscope"):
        return [str(python), __file__, "--run", kind, "--port", str(port), "--model", model]
    log = "none" if kind.endswith("without a log") else f"sqlite:///{folder / 'log.sqlite3'}"
    return [
        *(sys.executable, "-m", "senoscope", "serve", "--model", model, "--device", "cpu"),
        *("--port", str(port), "--stream", "", "--results", "", "--database-url", log),
    ]


class Client:
    """One kept connection that posts one body."""

    def __init__(self, port: int, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._body = body

    def post(self) -> float:
        """Return the milliseconds of one request."""
        began = time.perf_counter()
        self._connection.request("POST", _PATH, self._body, {"Content-Type": "application/octet-stream"})
        answer = self._connection.getresponse()
        text = answer.read()
        took_ms = (time.perf_counter() - began) * 1e3
        assert answer.status == 200, text[:300]
        return took_ms


def bodies() -> dict[str, bytes]:
    """Return one field of view as TIFF and as NPY."""
    import tifffile

    pixels = np.random.default_rng(0).integers(0, 1000, (3, 250, 300), dtype=np.uint16)
    tiff, npy = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(tiff, pixels, photometric="minisblack", metadata={"axes": "CYX"})
    np.save(npy, pixels)
    return {"tiff": tiff.getvalue(), "npy": npy.getvalue()}


def compare_posts(model: str, kinds: list[str], posts: int, mosec: Path | None) -> dict[str, Any]:
    """Post to all servers alternately, and return the statistics of each."""
    took: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        clients: dict[str, Callable[[bytes], Client]] = {}
        for kind in kinds:
            port = _free_port()
            path = "/metrics" if kind == "mosec" else "/readyz"
            python = mosec if kind == "mosec" and mosec else Path(sys.executable)
            command = command_of(kind, model, port, Path(folder), python)
            stack.enter_context(running(command, port, path))
            clients[kind] = lambda body, port=port: Client(port, body)
        for name, body in bodies().items():
            opened = {kind: make(body) for kind, make in clients.items()}
            for _ in range(100):  # warm-up
                for client in opened.values():
                    client.post()
            took[name] = {kind: [] for kind in kinds}
            for n in range(posts):
                shift = n % len(kinds)
                for kind in kinds[shift:] + kinds[:shift]:
                    took[name][kind].append(opened[kind].post())
    return {name: _statistics(of_kinds) for name, of_kinds in took.items()}


def _statistics(took: dict[str, list[float]]) -> dict[str, Any]:
    bare = statistics.median(took["bare"])
    rows = {}
    for kind, values in took.items():
        values.sort()
        rows[kind] = {
            "p50_ms": round(statistics.median(values), 3),
            "p95_ms": round(values[int(0.95 * len(values))], 3),
            "p99_ms": round(values[int(0.99 * len(values))], 3),
            "ratio_to_bare": round(statistics.median(values) / bare, 3),
        }
    return rows


def compare_starts(model: str, rounds: int) -> dict[str, Any]:
    """Start service and bare application alternately, and return the seconds until each was ready."""
    took: dict[str, list[float]] = {"bare": [], "senoscope": []}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(rounds):
            for kind in sorted(took, reverse=n % 2 == 1):
                port = _free_port()
                place = Path(folder) / str(n)
                place.mkdir(exist_ok=True)
                with running(command_of(kind, model, port, place), port, "/readyz") as seconds:
                    took[kind].append(seconds)
    median = {kind: statistics.median(values) for kind, values in took.items()}
    return {
        "seconds": {kind: [round(one, 2) for one in values] for kind, values in took.items()},
        "median_s": {kind: round(value, 2) for kind, value in median.items()},
        "ratio_to_bare": round(median["senoscope"] / median["bare"], 3),
    }


def _print_table(found: dict[str, Any]) -> None:
    for name, rows in found.items():
        print(f"\n{name:28}{'p50':>8}{'p95':>8}{'p99':>8}  ratio to bare")
        for kind, row in rows.items():
            times = "".join(f"{row[key]:8.2f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
            print(f"{kind:28}{times}{row['ratio_to_bare']:8.2f}")


def _save(result: Path, part: str, found: dict[str, Any]) -> None:
    document = json.loads(result.read_text()) if result.exists() else {}
    document |= {"cores": os.cpu_count(), "python": platform.python_version(), part: found}
    result.write_text(json.dumps(document, indent=2) + "\n")


def _mosec_python(folder: Path | None) -> Path | None:
    """Return the interpreter of the environment that mosec was installed into, or None with a notice."""
    for place in ("bin/python", "Scripts/python.exe"):
        if folder is not None and (folder / place).is_file():
            return folder / place
    print("without mosec: see the first lines of this script", file=sys.stderr)
    return None


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--posts", type=int, default=1500, help="posts to each server, of each file format")
    parser.add_argument("--start", metavar="MODEL", help="compare cold starts with this ensemble instead")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each")
    parser.add_argument("--mosec", type=Path, help="environment with mosec")
    parser.add_argument("--result", type=Path)
    parser.add_argument("--run", choices=("bare", "mosec"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        (run_bare if options.run == "bare" else run_mosec)(options.model, options.port)
        return
    if options.start:
        starts = compare_starts(options.start, options.rounds)
        print(json.dumps(starts, indent=2))
        if options.result:
            _save(options.result, "cold_start", starts)
        return
    sys.path.insert(0, str(_ROOT / "tests"))
    from support import miniature

    mosec = _mosec_python(options.mosec)
    kinds = ["bare", "senoscope", "senoscope without a log", *(["mosec"] if mosec else [])]
    with tempfile.TemporaryDirectory() as folder:
        model = miniature.build(Path(folder) / "miniature")
        found = compare_posts(str(model), kinds, options.posts, mosec)
    _print_table(found)
    if options.result:
        _save(options.result, "posted_fov", found)


if __name__ == "__main__":
    main()
