"""The compose files: valid, consistent with each other and with the service, and without root."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from senoscope.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = sorted(DOCKER.glob("compose*.yml"))
STAGES = set(re.findall(r"(?m)^FROM .* AS (\S+)$", (DOCKER / "Dockerfile").read_text()))


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text())


def services(name: str) -> dict[str, dict[str, Any]]:
    """Return the services of a compose file, including what they extend."""
    found = load(name)["services"]
    for service, options in found.items():
        if "extends" in options:
            base = services(options["extends"]["file"])[options["extends"]["service"]]
            environment = {**base.get("environment", {}), **options.get("environment", {})}
            found[service] = {**base, **options, "environment": environment}
    return found


@pytest.mark.parametrize("file", COMPOSE, ids=lambda path: path.name)
def test_a_file_conforms_to_the_compose_specification(file: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_violates_the_specification(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yml"
    wrong.write_text((DOCKER / "compose.yml").read_text().replace("cap_drop:", "cap_droop:"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cap_droop" in done.stdout


@pytest.mark.parametrize("name", ["compose.yml", "compose.demo.yml"])
def test_mounted_volumes_are_declared_and_mounted_files_exist(name: str) -> None:
    declared = set(load(name)["volumes"])
    mounted = [
        volume.split(":")[0] for options in services(name).values() for volume in options.get("volumes", [])
    ]
    assert {volume for volume in mounted if not volume.startswith(".")} == declared
    for path in (volume for volume in mounted if volume.startswith(".")):
        assert (DOCKER / path).exists(), path


@pytest.mark.parametrize("name", ["compose.yml", "compose.demo.yml"])
def test_no_service_has_privileges(name: str) -> None:
    for service, options in services(name).items():
        assert options["cap_drop"] == ["ALL"], service
        assert options["security_opt"] == ["no-new-privileges:true"], service
        assert not {"privileged", "cap_add", "user", "pid"} & set(options), service
        if options["image"].startswith("senoscope:"):
            assert options["read_only"], service


@pytest.mark.parametrize("name", ["compose.yml", "compose.demo.yml"])
def test_ports_are_published_on_loopback_only(name: str) -> None:
    published = [port for options in services(name).values() for port in options.get("ports", [])]
    assert len(published) == 2
    for port in published:
        assert re.match(r"127\.0\.0\.1:|\$\{SENOSCOPE_PUBLISH:-127\.0\.0\.1:", port), port


@pytest.mark.parametrize("name", [path.name for path in COMPOSE])
def test_environment_variables_are_settings_of_the_service(name: str) -> None:
    known = {f"SENOSCOPE_{field.upper()}" for field in Settings.model_fields}
    for service, options in services(name).items():
        if str(options.get("image", "senoscope:")).startswith("senoscope:"):
            assert set(options.get("environment", {})) <= known, service


def test_each_image_has_a_build_stage() -> None:
    for name in ("compose.yml", "compose.demo.yml"):
        for service, options in services(name).items():
            if "build" in options:
                target = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", options["build"]["target"])
                assert target in STAGES, service
                assert re.sub(r"\$\{\w+:-(\w+)\}", r"\1", options["image"]) == f"senoscope:{target}"


def test_secrets_of_the_environment_are_mounted() -> None:
    secure = load("compose.secure.yml")
    service = secure["services"]["service"]
    named = {Path(path).name for path in service["environment"].values()}
    assert named == set(service["secrets"])
    assert named | set(secure["services"]["prometheus"]["secrets"]) == set(secure["secrets"])


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.secure.yml"])
def test_prometheus_uses_the_key_that_is_created_for_it(name: str) -> None:
    (job,) = load(name)["scrape_configs"]
    (static,) = job["static_configs"]
    assert static["targets"] == [f"service:{Settings.model_fields['port'].default}"]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    prometheus, keys = (load("compose.yml")["services"][service] for service in ("prometheus", "keys"))
    (volume,) = (volume for volume in prometheus["volumes"] if volume.startswith("prometheus-key:"))
    assert job["authorization"]["credentials_file"] == f"{volume.split(':')[1]}/key"
    assert "prometheus-key:/issued/prometheus" in keys["volumes"]
    assert "> /issued/prometheus/key" in keys["command"][-1]
