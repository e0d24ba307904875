"""The decider: its sinks do not delay results, and the documented rules are valid."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from senoscope.decisions.decider import Decider
from senoscope.decisions.rules import RuleSet, read_rules
from senoscope.results.delivery import DeliveryTimes
from senoscope_client.wire.messages import Position
from support.run_logs import result, wait_for

TIMES = DeliveryTimes(0.0, 0.0)
DOCS = Path(__file__).parents[3] / "docs" / "how-to"
RULES = RuleSet.model_validate(
    {"rules": [{"name": "rescan", "action": "revisit", "when": {"probability": {"above": 0.8}}}]}
)


def record(frame: int, probability: float = 0.9) -> SimpleNamespace:
    return SimpleNamespace(
        result=result(frame, probability=probability, position_um=Position(x=50.0 * frame, y=0, z=0))
    )


class BlockingSink:
    """A sink that blocks until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.judged: list[tuple[int, int]] = []

    def on_judged(self, result, decisions, judged) -> None:
        assert len(decisions) == judged.decisions
        self.released.wait()
        self.judged.append((judged.frame, judged.decisions))


class FailingSink:
    def on_judged(self, result, decisions, judged) -> None:
        raise RuntimeError("no")


@pytest.mark.parametrize("order", [1, -1])
def test_a_blocking_or_failing_sink_does_not_delay_results(order: int) -> None:
    blocking = BlockingSink()
    decider = Decider(RULES, [blocking, FailingSink()][::order], None)
    decider.thread.start()
    undecided = record(2, 0.1)
    for one in (record(0), record(1), *[undecided] * 4998):  # blocks if it waits for the sink
        decider.on_result(one, TIMES)
    assert decider.lost > 0
    blocking.released.set()
    wait_for(lambda: len(blocking.judged) + decider.lost == 5000)
    decider.close()
    assert blocking.judged[:3] == [(0, 1), (1, 1), (2, 0)]
    assert len(blocking.judged) + decider.lost == 5000
    assert decider.thread.problem is None


def test_waiting_results_are_judged_before_it_stops() -> None:
    blocking = BlockingSink()
    decider = Decider(RULES, [blocking], None)
    decider.thread.start()
    for n in range(30):
        decider.on_result(record(n), TIMES)
    blocking.released.set()
    decider.close()
    assert [frame for frame, _ in blocking.judged] == list(range(30))
    assert decider.status().decided == {"revisit": 20}
    assert decider.status().withheld == 10


def test_after_a_failure_the_next_result_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    blocking = BlockingSink()
    blocking.released.set()
    decider = Decider(RULES, [blocking], None)
    broken = record(0)
    broken.result = SimpleNamespace(source=broken.result.source)
    decider.thread.start()
    decider.on_result(broken, TIMES)
    decider.on_result(record(1), TIMES)
    wait_for(lambda: blocking.judged == [(1, 1)])
    assert decider.thread.deaths == 1
    decider.close()


def test_the_rules_of_the_documentation_are_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (DOCS / "closed-loop.md").read_text("utf-8"), re.DOTALL)
    path = tmp_path / "rules.toml"
    path.write_text(text, "utf-8")
    rules = read_rules(path)
    assert rules == rules.model_copy(update={"dry_run": True})
    assert [rule.describe() for rule in rules.rules] == [
        "rescan: revisit when probability above 0.8, agreement above 0.7, not flagged saturated",
        "enough: stop when probability above 0.8 (until under 0.6), for 3 consecutive fields of view",
    ]
