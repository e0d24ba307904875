"""The Dockerfile: its files, extras, variables and labels exist; tests/docker/prove_image.py builds it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from senoscope.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_copied_files_exist_in_the_build_context() -> None:
    sources = [
        source
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", DOCKERFILE)
        for source in line.split()[:-1]
    ]
    assert "pyproject.toml" in sources
    kept = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    for source in sources:
        path = source.removeprefix("./")
        assert (ROOT / path).exists(), path
        assert path in kept, f".dockerignore excludes {path}"


def test_extras_exist() -> None:
    for extras in re.findall(r'install -c constraints\.txt "\.\[([^\]]+)\]"', DOCKERFILE):
        named = extras.replace("${EXTRAS}", "otel,postgres").split(",")
        assert set(named) <= set(PROJECT["optional-dependencies"])
    # Some builders do not pass an argument to stages that are based on the one that declares it.
    for stage in re.split(r"(?m)^FROM ", DOCKERFILE):
        assert "${EXTRAS}" not in stage or "ARG EXTRAS=otel,postgres" in stage, stage


def test_variables_are_settings_of_the_service() -> None:
    known = {f"SENOSCOPE_{field.upper()}" for field in Settings.model_fields}
    named = set(re.findall(r"\b(SENOSCOPE_\w+)=", DOCKERFILE))
    assert "SENOSCOPE_HOST" in named
    assert named <= known


def test_every_image_is_unprivileged() -> None:
    stages = {re.search(r"AS (\S+)", stage)[1]: stage for stage in re.split(r"(?m)^FROM ", DOCKERFILE)[1:]}
    for target in ("cpu", "gpu", "trainer"):
        assert re.findall(r"(?m)^USER (.+)$", stages[target]) == ["10001:10001"], target
    assert list(stages)[-1] == "cpu"  # the default target


@pytest.mark.parametrize("name", ["version", "description"])
def test_labels_equal_the_metadata_of_the_package(name: str) -> None:
    assert re.findall(rf'org\.opencontainers\.image\.{name}="([^"]+)"', DOCKERFILE) == [PROJECT[name]]
