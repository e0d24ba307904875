"""``senoscope bench`` with the real service and the miniature ensemble. No test asserts a speed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from senoscope.bench.passport import Histogram, Passport, Spread
from senoscope.bench.rate import RateSearch, problem_of
from senoscope.bench.stream import StreamRun
from support.commands import command_line, run_command
from support.stalling_engine import stalling_services

_SVG = "{http://www.w3.org/2000/svg}"


def bench(model: Path, output: Path, *arguments: object, **environment: str) -> dict[str, Any]:
    command = ("bench", "--model", model, "--device", "cpu", "--quick", "--output", output, *arguments)
    done = run_command("senoscope", *command, "--json", **environment)
    assert done.returncode == 0, done.stderr
    passport = json.loads(done.stdout)
    assert passport == json.loads((output / "bench.json").read_text())
    return passport


@pytest.fixture(scope="module")
def measured(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the passport and the histogram of a quick measurement."""
    folder = tmp_path_factory.mktemp("bench")
    passport = bench(miniature, folder, "--deadline-ms", 60_000)
    assert passport["search"], "the highest rate was searched for"
    return folder


def test_the_passport_has_every_figure(measured: Path) -> None:
    passport = Passport.read(measured / "bench.json")
    assert [batch.batch_size for batch in passport.batches] == [1, 16]
    alone, beside = passport.streams
    assert alone.sent == alone.received > 0
    assert (alone.dropped, alone.failed, alone.late) == (0, 0, 0)
    assert alone.latency_ms is not None
    assert alone.overhead_ms is not None
    assert 0 < alone.overhead_ms.p50 < alone.latency_ms.p50
    assert alone.histogram is not None
    assert sum(alone.histogram.counts) == alone.received
    assert beside.stacks is not None
    assert beside.stacks.succeeded > 0
    assert beside.rate_hz == alone.rate_hz
    assert (passport.deadline_ms, passport.deadline_kept) == (60_000, True)
    assert passport.engine["compute_ms"] > 0
    assert passport.precision == "fp32"
    assert passport.machine.cores >= 1
    assert {"senoscope", "Python", "numpy"} <= set(passport.machine.versions)
    assert len(passport.ensemble.digest) == 64


def test_the_histogram_is_a_picture_with_a_title_and_all_frames(measured: Path) -> None:
    passport = Passport.read(measured / "bench.json")
    picture = ElementTree.parse(measured / "bench.svg").getroot()
    assert picture.get("role") == "img"
    texts = [element.text or "" for element in picture.iter()]
    assert any("wire to wire" in text for text in texts)
    assert any("deadline 60000 ms" in text for text in texts)
    assert {"p50", "p99"} <= set(texts)
    bars = [title.text or "" for title in picture.findall(f"{_SVG}rect/{_SVG}title")]
    shown = sum(int(text.rpartition(": ")[2].removesuffix(" FOVs")) for text in bars)
    assert shown == sum(stream.received for stream in passport.streams)
    assert "prefers-color-scheme: dark" in (measured / "bench.svg").read_text()


def test_a_stall_of_the_engine_is_visible(miniature: Path, tmp_path: Path) -> None:
    """30 ms once a second, at 20 FOVs per second: one frame in twenty, beyond the median and the p95."""
    stalls = stalling_services(tmp_path, 0.03, 1.0)
    found = bench(miniature, tmp_path / "out", "--rate", 20, "--seconds", 6, **stalls)
    alone = found["streams"][0]
    assert alone["sent"] == alone["received"] == 120
    times = alone["latency_ms"]
    assert times["p99"] >= 30
    assert times["max"] >= 30
    edges, counts = alone["histogram"]["edges_ms"], alone["histogram"]["counts"]
    slow = sum(n for low, n in zip(edges, counts, strict=False) if low >= 28)
    assert slow >= 4, "the stalls are bars of the histogram"
    bars = ElementTree.parse(tmp_path / "out" / "bench.svg").getroot().findall(f"{_SVG}rect/{_SVG}title")
    assert any(float((bar.text or "").split()[0]) >= 28 for bar in bars)


def test_the_table_and_the_settings_of_the_service(miniature: Path, tmp_path: Path) -> None:
    """Addresses and sources of the real service of this machine are not those of the measured one."""
    command = ["bench", "--model", miniature, "--device", "cpu", "--quick", "--rate", 10]
    in_home = sys.platform == "linux"  # elsewhere no variable moves the user's data folder
    command += [] if in_home else ["--output", tmp_path / "senoscope"]
    others = {"XDG_DATA_HOME": str(tmp_path)}
    others |= {
        "SENOSCOPE_PORT": "1",
        "SENOSCOPE_API_KEY": "k" * 40,
        "SENOSCOPE_WATCH": str(tmp_path / "watched"),
    }
    others |= {"SENOSCOPE_DATABASE_URL": f"sqlite:///{tmp_path / 'real.sqlite3'}"}
    done = run_command("senoscope", *command, **others)
    assert done.returncode == 0, done.stderr
    assert "stream of 10 FOVs per second with posted stacks of 16" in done.stderr
    shown = ("p50", "p95", "p99", "max", "engine, batch 16", "stacks of 16")
    assert all(name in done.stdout for name in shown)
    assert str(tmp_path / "senoscope" / "bench.json") in done.stderr
    assert (tmp_path / "senoscope" / "bench.svg").exists()
    assert not (tmp_path / "real.sqlite3").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT of other processes")
def test_ctrl_c_ends_all_processes(miniature: Path, tmp_path: Path) -> None:
    command = ("bench", "--model", miniature, "--device", "cpu", "--rate", 5, "--seconds", 600)
    process = subprocess.Popen(
        command_line("senoscope", *command, "--output", tmp_path), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "stream of 5 FOVs per second" not in (line := process.stderr.readline()):
        assert line, "the command ended"
    deadline = time.monotonic() + 60
    while len(children := psutil.Process(process.pid).children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert not list(tmp_path.iterdir())


def test_an_ensemble_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    done = run_command("senoscope", "bench", "--model", "none-such", "--output", tmp_path)
    assert done.returncode == 1
    assert "none-such" in done.stderr


def doctor(model: Path, passport: Path) -> dict[str, str]:
    done = run_command(
        *("senoscope", "doctor", "--json", "--device", "cpu", "--port", 0, "--stream", ""),
        *("--model", model, "--passport", passport),
    )
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, "the passport does not decide whether the service can run"
    return findings["bench"]


def test_doctor_finds_no_change(measured: Path, miniature: Path) -> None:
    finding = doctor(miniature, measured / "bench.json")
    assert finding["verdict"] == "ok", finding
    assert "nothing changed" in finding["text"]


def test_doctor_names_what_changed(measured: Path, miniature: Path, tmp_path: Path) -> None:
    passport = json.loads((measured / "bench.json").read_text())
    gpu = {"driver": "550.1", "max_clocks_mhz": {"graphics": 1980}, "clocks_mhz": {"graphics": 345}}
    passport["machine"]["gpu"] = {"name": "NVIDIA Test", **gpu}
    passport["machine"]["versions"]["numpy"] = "1.0"
    passport["ensemble"]["digest"] = "0" * 64
    passport["precision"] = "fp16"
    (tmp_path / "bench.json").write_text(json.dumps(passport))
    finding = doctor(miniature, tmp_path / "bench.json")
    assert finding["verdict"] == "note"
    for change in ("GPU: NVIDIA Test ->", "numpy: 1.0 ->", "000000000000 ->", "precision: fp16 -> fp32"):
        assert change in finding["text"]
    assert "run `senoscope bench` again" in finding["text"]


def test_changes_of_a_gpu_are_named(measured: Path) -> None:
    from senoscope.bench.comparison import changes_since
    from senoscope.bench.machine import Gpu

    passport = Passport.read(measured / "bench.json")
    clocks = {"graphics": 1980, "memory": 2619}
    then = Gpu(name="A", driver="550.1", max_clocks_mhz=clocks, clocks_mhz=clocks, power_limit_w=700)
    slower = {"max_clocks_mhz": {"graphics": 1200, "memory": 2619}, "power_limit_w": 350.0}
    now = then.model_copy(update={"driver": "560.2", **slower})
    before = passport.model_copy(update={"machine": passport.machine.model_copy(update={"gpu": then})})
    after = passport.machine.model_copy(update={"gpu": now})
    assert changes_since(before, after, None) == [
        "driver: 550.1 -> 560.2",
        "highest graphics clock in MHz: 1980 -> 1200",
        "power limit in W: 700.0 -> 350.0",
    ]


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"[]", b'{"kind": "another program"}', b'{"kind": "senoscope bench"}']
)
def test_doctor_reports_a_file_that_is_no_passport(content: bytes, miniature: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(content)
    finding = doctor(miniature, path)
    assert finding["verdict"] == "note"
    assert "is not a passport" in finding["text"]
    assert "senoscope bench" in finding["text"]


def test_doctor_recommends_a_first_measurement(miniature: Path, tmp_path: Path) -> None:
    finding = doctor(miniature, tmp_path / "none.json")
    assert finding["verdict"] == "note"
    assert "there is no passport" in finding["text"]


def simulated(rate_hz: float, frames: int, capacity_hz: float) -> StreamRun:
    """A run through a queue without a limit, with constant times."""
    service_s = 1 / capacity_hz
    sent = [n / rate_hz for n in range(frames)]
    latencies, free_s = [], 0.0
    for at_s in sent:
        free_s = max(free_s, at_s) + service_s
        latencies.append((free_s - at_s) * 1e3)
    return StreamRun(rate_hz, sent, latencies, latencies, 0, 0, 0)


@pytest.mark.parametrize("first_hz", [2.0, 10.0, 60.0])
def test_the_search_finds_the_capacity(first_hz: float) -> None:
    def measure(rate_hz: float, frames: int) -> StreamRun:
        return simulated(rate_hz, frames, 10.0)

    search = RateSearch(measure, None, 1.05, 5.0, 40, lambda _: None)
    found = search.highest(first_hz)
    assert found is not None
    assert 9.3 <= found <= 10.5
    assert any(trial.problem for trial in search.trials)


def test_a_deadline_limits_the_rate() -> None:
    run = simulated(20, 100, 10)
    assert problem_of(run, None) == "results fall behind the frames"
    assert "the deadline 50 ms" in (problem_of(simulated(5, 30, 10), 50) or "")
    assert problem_of(simulated(5, 30, 10), 150) is None
    lost = StreamRun(5, [0, 0.2, 0.4], [1.0, 1.0], [1.0, 1.0], 0, 1, 0)
    assert problem_of(lost, None) == "1 of 3 frames have no result"
    slow = StreamRun(5, [0, 1, 2], [1.0] * 3, [1.0] * 3, 0, 0, 0)
    assert "microscope sent only 1" in (problem_of(slow, None) or "")


def test_percentiles_are_measured_values() -> None:
    spread = Spread.of([*range(1, 100), 1000.0])
    assert spread is not None
    assert (spread.count, spread.p50, spread.max) == (100, 51, 1000)
    assert spread.p99 == 1000, "no value between two measured ones"
    histogram = Histogram.of([1.0, 1.01, 30.0])
    assert histogram is not None
    assert sum(histogram.counts) == 3
    assert histogram.edges_ms[0] <= 1 < 30 < histogram.edges_ms[-1]
    assert len(histogram.edges_ms) == len(histogram.counts) + 1
