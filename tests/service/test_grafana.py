"""The Grafana dashboard, the alerts and the page about metrics, checked against a real server."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "docker" / "grafana" / "senoscope.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Present only with a GPU.
ON_A_GPU = {"senoscope_device_memory_used_bytes", "senoscope_device_memory_size_bytes"}
# Present only with an archive.
WITH_AN_ARCHIVE = {"senoscope_archive_lost_total"}


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.fixture(scope="module")
def scraped(server: Server) -> dict[str, set[str]]:
    """Return the names of samples, with their labels, of a server that classified frames and a stack."""
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(0), scope.frame(2, mini.dark()))
        server.wait(lambda status: status["live"]["classified"] == 2)
        assert httpx.post(f"{server.url}/v1/classify", content=npy(mini.bright())).status_code == 200
        text = httpx.get(f"{server.url}/metrics").text
    finally:
        scope.close()
    families = text_string_to_metric_families(text)
    found: dict[str, set[str]] = {}
    for family in families:
        found.setdefault(family.name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_each_metric_of_the_dashboard_exists(scraped: dict[str, set[str]]) -> None:
    named = {name for text in expressions() for name in re.findall(r"\bsenoscope_\w+", text)}
    assert len(named) > 20
    assert named - ON_A_GPU <= scraped.keys()


def test_each_label_of_the_dashboard_exists(scraped: dict[str, set[str]]) -> None:
    for text in expressions():
        for name, selectors in re.findall(r"\b(senoscope_\w+)\{([^}]*)\}", text):
            used = set(re.findall(r"(\w+)=~?\"", selectors)) - {"instance"}
            assert name in ON_A_GPU or used <= scraped[name], text


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return group["rules"]


def test_each_metric_and_label_of_the_alerts_exists(scraped: dict[str, set[str]]) -> None:
    assert len(alerts()) > 8
    for rule in alerts():
        named = re.findall(r"\b(senoscope_\w+|up)\b", rule["expr"])
        assert named, rule
        assert set(named) - {"up"} - WITH_AN_ARCHIVE <= scraped.keys(), rule["alert"]
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        used |= {
            label
            for _, selectors in re.findall(r"\b(senoscope_\w+)\{([^}]*)\}", rule["expr"])
            for label in re.findall(r"(\w+)=~?\"", selectors)
        }
        assert all(any(label in scraped[name] for name in named) for label in used), rule["alert"]


def test_metrics_of_some_machines_only_are_declared() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in ON_A_GPU | WITH_AN_ARCHIVE)


def test_each_alert_is_valid_for_prometheus() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["annotations"]["summary"]


def test_prometheus_reads_the_alerts() -> None:
    docker = ROOT / "docker"
    compose = yaml.safe_load((docker / "compose.yml").read_text(encoding="utf-8"))
    assert "./alerts.yml:/etc/prometheus/alerts.yml:ro" in compose["services"]["prometheus"]["volumes"]
    for name in ("prometheus.yml", "prometheus.secure.yml"):
        config = yaml.safe_load((docker / name).read_text(encoding="utf-8"))
        assert config["rule_files"] == ["/etc/prometheus/alerts.yml"]


def test_each_expression_is_balanced() -> None:
    for text in [*expressions(), *(rule["expr"] for rule in alerts())]:
        bare = re.sub(r'"[^"]*"', "", text)
        for left, right in ("()", "[]", "{}"):
            assert bare.count(left) == bare.count(right), text


def test_the_dashboard_is_valid_for_grafana() -> None:
    assert DASHBOARD["schemaVersion"] >= 41
    assert (DASHBOARD["title"], DASHBOARD["uid"]) == ("Senoscope", "senoscope")
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'instance=~"$instance"' in target["expr"]


def test_no_two_panels_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
