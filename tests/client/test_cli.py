"""The commands of ``senoscope-client``."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import threading

import pytest
import zmq

from senoscope_client.cli import main
from senoscope_client.wire.messages import EndHeader, ImageHeader, decode
from support.commands import command_line
from support.servers import free_port
from support.service_double import http_double, live_double, result


@pytest.fixture
def free_endpoint():
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def listener(free_endpoint):
    with zmq.Context.instance().socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 30_000)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe("fov/")
        socket.connect(free_endpoint)
        yield socket


def headers_until_end(listener):
    headers = []
    while not headers or not isinstance(headers[-1], EndHeader):
        headers.append(decode(listener.recv_multipart()).header)
    return headers


def test_publish_sends_and_counts_the_given_number_of_frames(free_endpoint, listener, capsys):
    options = ["--endpoint", free_endpoint, "--instrument", "nlo-1", "--series", "s", "--rate", "200"]
    assert main(["publish", "--synthetic", *options, "--frames", "3", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    headers = headers_until_end(listener)
    assert (summary["sent"], summary["completed"]) == (3, True)
    assert summary["series_uid"] == str(headers[-1].series_uid)
    assert [h.frame for h in headers if isinstance(h, ImageHeader)] == [0, 1, 2]
    assert {(h.instrument, h.series_id) for h in headers} == {("nlo-1", "s")}


def test_publish_sends_frames_of_the_given_size(free_endpoint, listener):
    options = [
        "--endpoint",
        free_endpoint,
        "--rate",
        "200",
        "--frames",
        "1",
        "--height",
        "64",
        "--width",
        "48",
    ]
    assert main(["publish", "--synthetic", *options]) == 0
    (image,) = (h for h in headers_until_end(listener) if isinstance(h, ImageHeader))
    assert image.shape == (3, 64, 48)


def test_publish_fails_without_a_subscriber(free_endpoint, capsys):
    options = ["--endpoint", free_endpoint, "--frames", "1"]
    assert main(["publish", "--synthetic", *options, "--wait-s", "0.05"]) == 1
    assert "no subscriber" in capsys.readouterr().err
    assert main(["publish", "--synthetic", *options, "--wait-s", "0"]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for other processes")
def test_publish_ends_the_series_on_sigint(free_endpoint, listener):
    command = command_line(
        *("senoscope-client", "publish", "--synthetic", "--rate", 50, "--json"),
        *("--endpoint", free_endpoint),
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while not isinstance(decode(listener.recv_multipart()).header, ImageHeader):
        pass
    process.send_signal(signal.SIGINT)
    end = headers_until_end(listener)[-1]
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert end.reason == "stopped"
    assert json.loads(out)["sent"] == end.frames_sent


def test_watch_receives_results_over_websocket(capsys):
    wanted = [result(kind="stream", instrument="nlo-1", series_id="s", frame=n) for n in range(3)]
    with live_double([r.model_dump_json() for r in wanted], code=0) as (url, _):
        assert main(["watch", "--url", url, "--count", "2", "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["id"] for line in lines] == [str(r.id) for r in wanted[:2]]
        assert main(["watch", "--url", url, "--count", "1"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["source", "FOV", "label", "probability", "ms", "flags"]
    assert line.split() == ["nlo-1/s", "0", "senescent", "0.750", "3.5", "saturated:SRS(10%)"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_output_pipe_is_not_an_error():
    """As with ``watch | head -1``."""
    wanted = [result(kind="stream", instrument="nlo-1", series_id="s", frame=n) for n in range(3)]
    with live_double([r.model_dump_json() for r in wanted], code=0) as (url, _):
        process = subprocess.Popen(
            command_line("senoscope-client", "watch", "--url", url, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
        process.stderr.close()


def test_watch_receives_results_over_zeromq(capsys):
    wanted = result(kind="upload", file="a.tif", frame=0)
    with zmq.Context.instance().socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def serve() -> None:
            socket.recv()
            socket.send_multipart([b"result/upload", wanted.model_dump_json().encode()])

        thread = threading.Thread(target=serve)
        thread.start()
        assert main(["watch", "--zmq", f"tcp://127.0.0.1:{port}", "--count", "1", "--json"]) == 0
        thread.join()
    assert json.loads(capsys.readouterr().out)["source"]["file"] == "a.tif"


def test_watch_fails_if_the_service_stops_before_count_results(capsys):
    with live_double([result().model_dump_json()], 1001) as (url, _):
        assert main(["watch", "--url", url, "--count", "2"]) == 1
        assert main(["watch", "--url", url]) == 0
    assert "stopped" in capsys.readouterr().err


def test_classify_continues_after_an_unreadable_file(tmp_path, capsys):
    good = tmp_path / "a.npy"
    good.write_bytes(b"\x93NUMPY")
    response = {"count": 1, "results": [json.loads(result(file="=a").model_dump_json())], "warnings": ["hm"]}
    with http_double() as service:
        service.respond("/v1/classify", response)
        command = ["classify", str(tmp_path / "missing.tif"), str(good), "--url", service.url]
        assert main([*command, "--csv"]) == 1
        output = capsys.readouterr()
        assert "missing.tif" in output.err
        assert "hm" in output.err
        assert main([*command[:1], str(good), *command[3:], "--json"]) == 0
    (row,) = csv.DictReader(io.StringIO(output.out))
    assert (row["file"], row["label"], float(row["p_xception"])) == (
        "'=a",
        "senescent",
        pytest.approx(1, abs=1e-6),
    )
    assert json.loads(capsys.readouterr().out)["label"] == "senescent"


def test_an_unreachable_service_is_reported(capsys, free_endpoint):
    url = free_endpoint.replace("tcp", "http")
    assert main(["watch", "--url", url]) == 1
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["publish"],
        ["publish", "--synthetic", "a.tif"],
        ["publish", "--synthetic", "--rate", "0"],
        ["publish", "--synthetic", "--frames", "0"],
        ["publish", "--synthetic", "--wait-s", "nan"],
        ["classify"],
        ["classify", "a.tif", "--json", "--csv"],
        ["watch", "--url", "http://a", "--zmq", "tcp://a"],
    ],
)
def test_wrong_usage_exits_with_2(command, capsys):
    assert main(command) == 2
    assert "usage:" in capsys.readouterr().err
