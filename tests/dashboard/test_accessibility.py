"""Contrast, labels, names and roles by the rules of axe-core; and operation by keyboard alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from senoscope_client import FramePublisher, Position
from support import miniature as mini
from support.dashboard_page import Seat
from support.servers import Server
from support.system import axe_core

pytestmark = pytest.mark.system("chromium")

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the source of axe-core."""
    return axe_core().read_text()


def faults(at: Seat, axe: str) -> list[str]:
    at.drawn()
    if at.page.evaluate("typeof axe") == "undefined":
        at.page.evaluate(axe)
    found = at.page.evaluate(
        """rules => axe.run(document, {
            runOnly: { type: "tag", values: rules },
            resultTypes: ["violations"],
        }).then(({ violations }) => ({ violations }))""",
        RULES,
    )
    return [
        f"{one['impact']} {one['id']}: {one['help']} at {node['target']} ({node['failureSummary']})"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


@pytest.mark.system("axe-core")
def test_no_view_has_a_serious_fault(start: Callable[..., Server], seat, axe: str) -> None:
    server = start()  # nothing was scanned yet
    at = seat(server.url)
    at.until(lambda: at.text("#connection").endswith("Connected"))
    empty = faults(at, axe)
    with FramePublisher(server.frames, "nlo-1") as publisher:
        assert publisher.wait_for_subscriber(60)
        publisher.start_series("plate 1", planned_frames=4)
        for n, level in enumerate((900, 60, 2000, 400)):
            publisher.publish(mini.bright(level=level), position_um=Position(x=100.0 * n, y=0.0, z=0.0))
            at.until(lambda n=n: at.seen() == n + 1)
        found = {"empty": empty, "live": faults(at, axe)}
    for name, view in (("History", "#history"), ("Model and range", "#model")):
        at.page.get_by_role("link", name=name).click()
        at.until(at.page.locator(view).is_visible)
        found[name] = faults(at, axe)
    at.page.get_by_role("button", name="Keyboard and help").click()
    found["help"] = faults(at, axe)
    at.page.keyboard.press("Escape")
    at.until(lambda: "No microscope" in at.text("#stream"))
    found["banner"] = faults(at, axe)
    assert {view: said for view, said in found.items() if said} == {}


def test_everything_is_reached_by_keyboard(server: Server, seat, new_scan) -> None:
    with new_scan("plate 2") as scan:
        scan.go((900,))
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
