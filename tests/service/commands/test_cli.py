"""The subcommands of ``senoscope``, called within the test's process where possible."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from senoscope.settings import Settings
from support import miniature as mini
from support.commands import CompletedCommand, command_line, run_command, run_process
from support.image_bytes import tiff
from support.servers import free_port, start_server, stop_server


def run(*arguments: object, **environment: str) -> CompletedCommand:
    return run_command("senoscope", *arguments, **environment)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "stack.npy"
    np.save(path, np.stack([mini.bright(), mini.dark()]))
    return path


def test_classify_as_a_table(miniature: Path, stack: Path) -> None:
    done = run("classify", stack, "--model", miniature)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("senescent") == 1
    assert done.stdout.count("control") == 1


def test_classify_as_a_process(miniature: Path, stack: Path) -> None:
    """As a process: start and end of the interpreter, its streams and its exit status."""
    done = run_process("senoscope", "classify", stack, "--csv", "--model", miniature)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
    bad = run_process("senoscope", "classify", stack.with_name("none.tif"), "--csv", "--model", miniature)
    assert bad.returncode == 1
    assert "none.tif" in bad.stderr


def test_classify_prints_assumptions_about_a_file(miniature: Path, tmp_path: Path) -> None:
    path = tmp_path / "inverted.tif"
    path.write_bytes(tiff(mini.bright(), photometric="miniswhite", metadata={"axes": "CYX"}))
    done = run("classify", path, "--csv", "--model", miniature)
    assert done.returncode == 0, done.stderr
    assert "inverted.tif" in done.stderr
    assert "white" in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_classify_as_json_lines_and_csv(miniature: Path, stack: Path) -> None:
    lines = run("classify", stack, "--json", SENOSCOPE_MODEL=str(miniature)).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert [result["label"] for result in results] == ["senescent", "control"]
    assert results[0]["source"] == {"kind": "file", "file": str(stack), "frame": 0}
    assert "href" not in results[0]["gradcam"], "without a server there is no link"
    text = run("classify", stack, "--csv", "--model", miniature).stdout
    assert [row["label"] for row in csv.DictReader(io.StringIO(text))] == ["senescent", "control"]


def test_classify_reads_the_files_of_folders(miniature: Path, stack: Path, tmp_path: Path) -> None:
    folder, empty = tmp_path / "scans", tmp_path / "empty"
    folder.mkdir(), empty.mkdir()
    for name in ("2.tif", "10.tif"):
        (folder / name).write_bytes(stack.read_bytes())
    (folder / "picture.czi").write_bytes(b"ZISRAWFILE")
    done = run("classify", folder, empty, tmp_path / "none.tif", "--json", "--model", miniature)
    names = [Path(json.loads(line)["source"]["file"]).name for line in done.stdout.splitlines()]
    assert names == ["2.tif", "2.tif", "10.tif", "10.tif"]
    assert done.returncode == 1
    messages = " ".join(done.stderr.split())
    assert ".czi files are not read" in messages
    assert "the folder has no TIFF or NPY files" in messages
    assert "No such file or directory" in messages
    assert "Errno" not in messages


def test_classify_writes_overlays(miniature: Path, stack: Path, tmp_path: Path) -> None:
    done = run("classify", stack, "--json", "--cam", tmp_path / "maps", "--model", miniature)
    assert all(json.loads(line)["gradcam"]["grids"] for line in done.stdout.splitlines())
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == [f"stack_{n:04d}_{c}.png" for n in (0, 1) for c in ("SRS", "TPEF", "Transmission")]
    assert cv2.imread(str(tmp_path / "maps" / names[0])).shape == (250, 300, 3)


def test_overlays_of_files_with_the_same_name_do_not_overwrite_each_other(
    miniature: Path, stack: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "stack.npy"
    other.parent.mkdir()
    np.save(other, np.stack([mini.dark(), mini.bright()]))
    done = run("classify", stack, other, "--cam", tmp_path / "maps", "--csv", "--model", miniature)
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert len(names) == 12
    assert {"stack_0000_SRS.png", "stack-2_0000_SRS.png"} <= names
    assert [row["file"] for row in csv.DictReader(io.StringIO(done.stdout))] == [
        *(str(stack), str(stack), str(other), str(other))
    ]


def test_an_unreadable_file_does_not_stop_the_others(miniature: Path, stack: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"nothing")
    done = run("classify", tmp_path / "bad.tif", tmp_path / "none.tif", stack, "--csv", "--model", miniature)
    assert done.returncode == 1
    assert "bad.tif" in done.stderr
    assert "none.tif" in done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "--model", "none-such", "--port", "0"], 1, "no ensemble here"),
        (["serve", "--port", "99999"], 2, "--port or SENOSCOPE_PORT"),
        (["serve", "--stream", "acquisition-pc:5555"], 2, "is not a valid ZeroMQ endpoint, for example"),
        (["serve", "--device", "tpu"], 2, "--device"),
        (["classify", "x.npy", "--model", "/nowhere"], 1, "no ensemble here"),
        (["classify", "x.npy", "--json", "--csv"], 2, "cannot be combined"),
        (["demo", "--device", "bogus"], 2, "--device"),
        (["demo", "--seed", "-1"], 2, "--seed"),
        (["demo", "--port", "99999"], 2, "--port"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named() -> None:
    for package, extra in (("senoscope", "service"), ("senoscope_training", "training")):
        blocked = "import sys; sys.modules['typer'] = None; "
        blocked += f"from {package}.__main__ import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f'typer is not installed; this command needs `pip install "senoscope[{extra}]"`' in done.stderr
        assert "Traceback" not in done.stderr


def test_a_missing_package_of_a_subcommand_is_named(miniature: Path, stack: Path) -> None:
    """A subcommand's packages are not imported with the list of subcommands."""
    blocked = "import sys; sys.modules['cv2'] = None; from senoscope.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", blocked, "classify", str(stack), "--model", str(miniature)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'cv2 is not installed; this command needs `pip install "senoscope[service]"`' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_named(miniature: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", port, "--model", miniature)
        demo = run("demo", "--port", port, "--model", miniature, "--frames", "1")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert demo.returncode == 1
    assert f"port {port} is in use" in demo.stderr


def test_options_override_variables_and_variables_override_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENOSCOPE_DEADLINE_MS", "50")
    assert Settings().deadline_ms == 50
    assert Settings(deadline_ms=10).deadline_ms == 10
    assert Settings().live_queue == 8


def test_every_setting_has_an_option_and_a_variable() -> None:
    text = run("serve", "--help").stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
        assert f"SENOSCOPE_{name.upper()}" in text


def test_demo_with_a_selected_ensemble(tmp_path: Path) -> None:
    """The simulated fields of view have the size that the ensemble expects."""
    small = mini.build(tmp_path / "small", height=168, width=360)
    done = run("demo", "--model", small, "--frames", "6", "--port", "0", "--no-browser", "--json")
    summary = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (summary["sent"], summary["classified"], summary["lost"]) == (6, 6, 0)
    assert (summary["deadline_ms"], summary["deadline_misses"]) == (None, None)
    assert done.stderr.count("truth") == 6, "without a terminal one line is printed per FOV"


@pytest.mark.parametrize("shown", [0, pytest.param(3, marks=pytest.mark.full)])
def test_demo_ends_its_processes_on_ctrl_c(miniature: Path, shown: int) -> None:
    if os.name == "nt":
        pytest.skip("POSIX signals")
    process = subprocess.Popen(
        command_line("senoscope", "demo", "--model", miniature, "--port", 0, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Background processes of a shell ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    while f"FOV {shown}:" not in process.stderr.readline():
        assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    summary = json.loads(out)
    assert summary["sent"] == summary["classified"] > shown
    assert (process.returncode, summary["lost"]) == (0, 0), (
        "the demo waits for results of frames already sent"
    )
    assert not psutil.wait_procs(children, timeout=30)[1]


@pytest.mark.full
def test_demo_ends_its_processes_on_sigterm(miniature: Path) -> None:
    if os.name == "nt":
        pytest.skip("POSIX signals")
    process = subprocess.Popen(
        command_line("senoscope", "demo", "--model", miniature, "--port", 0, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "FOV 1" not in process.stderr.readline():
        assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not psutil.wait_procs(children, timeout=30)[1]


def test_doctor(miniature: Path) -> None:
    done = run("doctor", "--json", "--model", miniature, "--port", free_port())
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert findings["ensemble"]["verdict"] == "ok"
    assert findings["stream"]["verdict"] == "note", "a missing publisher is not an error of this machine"
    failed = run("doctor", "--json", "--model", "none-such", "--stream", "")
    assert failed.returncode == 1
    assert {f["topic"] for f in json.loads(failed.stdout) if f["verdict"] == "fail"} == {"ensemble"}


def test_doctor_recognizes_a_running_service(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt")
    try:
        port = server.url.rpartition(":")[2]
        done = run("doctor", "--model", miniature, "--port", port, "--stream", "")
    finally:
        stop_server(server)
    text = done.stdout.replace("\n", " ")
    assert f"a Senoscope service already listens on 127.0.0.1:{port}: ready" in text
