"""Contrast, labels, names and roles by the rules of axe-core; and a way through the page without a mouse."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from senoscope_client import FramePublisher, Position
from support import miniature as mini
from support.dashboard_page import Seat
from support.servers import Server

pytestmark = [pytest.mark.system("chromium"), pytest.mark.system("npm")]

ROOT = Path(__file__).parents[2]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's source, from the npm registry once for each version."""
    wanted = Path(__file__).with_name("package.json")
    home = ROOT / ".cache" / "npm" / json.loads(wanted.read_text())["devDependencies"]["axe-core"]
    script = home / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(wanted, home)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        subprocess.run(command, cwd=home, check=True, capture_output=True)
    return script.read_text()


def faults(at: Seat, axe: str) -> list[str]:
    at.page.wait_for_timeout(200)
    at.page.evaluate(axe)
    found = at.page.evaluate("rules => axe.run(document, { runOnly: { type: 'tag', values: rules } })", RULES)
    return [
        f"{one['impact']} {one['id']}: {one['help']} at {node['target']} ({node['failureSummary']})"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


def test_no_view_has_a_serious_fault(server: Server, seat, axe: str) -> None:
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    empty = faults(at, axe)
    with FramePublisher(server.frames, "nlo-1") as publisher:
        assert publisher.wait_for_subscriber(10)
        publisher.start_series("plate 1", planned_frames=4)
        for n, level in enumerate((900, 60, 2000, 400)):
            publisher.publish(mini.bright(level=level), position_um=Position(x=100.0 * n, y=0.0, z=0.0))
            at.until(lambda n=n: at.seen() == n + 1)
        found = {"empty": empty, "live": faults(at, axe)}
    for name in ("History", "Model and range"):
        at.page.get_by_role("link", name=name).click()
        found[name] = faults(at, axe)
    at.page.get_by_role("button", name="Keyboard and help").click()
    found["help"] = faults(at, axe)
    at.page.keyboard.press("Escape")
    at.until(lambda: "No microscope" in at.text("#stream"))
    found["banner"] = faults(at, axe)
    assert {view: said for view, said in found.items() if said} == {}


def test_everything_is_reached_by_keyboard(server: Server, seat) -> None:
    with FramePublisher(server.frames, "nlo-2") as publisher:
        assert publisher.wait_for_subscriber(10)
        publisher.start_series("plate 2")
        publisher.publish(mini.bright())
        at = seat(server.url)
        at.until(lambda: "plate 2" in at.text("#where"))
        reached = []
        for _ in range(60):
            at.page.keyboard.press("Tab")
            name, visible = at.page.evaluate(
                """() => {
                    const e = document.activeElement;
                    const ring = getComputedStyle(e.matches(".segments input") ? e.nextElementSibling : e);
                    const name = e === document.body ? "" : e.id || e.textContent.trim() || e.name;
                    return [name, ring.outlineStyle !== "none"];
                }"""
            )
            if not name or name in reached:  # once around
                break
            assert visible, f"{name} has the focus and does not show it"
            reached.append(name)
        wanted = ["Live", "History", "Model and range", "series", "follow", "open", "help", "contrast"]
        wanted += ["network", "style", "opacity", "layer", "map", "previous", "next", "timeline"]
        assert [name for name in wanted if name not in reached] == []
        assert reached[0] == "Skip to the picture"
