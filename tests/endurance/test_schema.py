"""Valid and invalid requests generated from ``/openapi.json``; answers are checked against it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from senoscope_client import Client
from support import miniature as mini
from support.load import Endurance, memory_mib
from support.raw_microscope import Microscope
from support.servers import Server

pytestmark = pytest.mark.full

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def known_parameters(server: Server) -> str:
    """Return existing identifiers, for requests that get past the lookup."""
    scope = Microscope(server.frames)
    try:
        scope.send(*(scope.frame(n) for n in range(3)))
        server.wait(lambda status: status["live"]["classified"] == 3)
    finally:
        scope.close()
    with Client(server.url) as client:
        (result,) = client.classify(mini.bright())
    parameters = {"identifier": result.id, "uid": scope.uid, "name": "miniature"}
    lines = [f'"path.{name}" = "{value}"' for name, value in parameters.items()]
    return "\n".join(["[parameters]", *lines, ""])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("known", [False, True], ids=["any identifiers", "known identifiers"])
def test_answers_conform_to_the_schema(
    start: Callable[..., Server], endurance: Endurance, tmp_path: Path, known: bool
) -> None:
    server = start("--max-upload-mib", "8", "--remember-mib", "8")
    before = memory_mib(server)
    (tmp_path / "schemathesis.toml").write_text(known_parameters(server) if known else "")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"]
    command += ["run", f"{server.url}/openapi.json", "--checks", ",".join(CHECKS), "--mode", "all"]
    command += ["--phases", "coverage,fuzzing", "--continue-on-failure", "--generation-database", "none"]
    command += ["--no-color", "--report", "json", "--report-json-path", "report.json"]
    # The short form always generates the same requests; a finding of the long one becomes a separate test.
    command += endurance.scale(
        ["--max-examples", "5", "--seed", "2023"], ["--max-examples", "200", "--max-time", "300"]
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["complete"]
    endurance.report(
        operations=report["operations"]["tested"],
        cases=report["test_cases"]["generated"],
        seconds=round(report["running_time"], 1),
        memory_mib={"before": round(before, 1), "after": round(memory_mib(server), 1)},
    )
    with Client(server.url) as client:
        assert client.ready().ready
        results = client.classify(np.stack([mini.bright(), mini.dark()]))
        assert [result.label for result in results] == ["senescent", "control"]
    assert httpx.get(f"{server.url}/v1/model").json()["name"] == "miniature"
    assert "Traceback" not in server.log.read_text()
