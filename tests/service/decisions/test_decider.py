"""Who listens to decisions cannot hold up results; what is documented is what is read."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from senoscope.decisions.decider import Decider
from senoscope.decisions.rules import RuleSet, read_rules
from senoscope_client.wire.messages import Position
from support.run_logs import result, wait_for

DOCS = Path(__file__).parents[3] / "docs" / "how-to"
RULES = RuleSet.model_validate(
    {"rules": [{"name": "rescan", "action": "revisit", "when": {"probability": {"above": 0.8}}}]}
)


def record(frame: int, probability: float = 0.9) -> SimpleNamespace:
    return SimpleNamespace(
        result=result(frame, probability=probability, position_um=Position(x=50.0 * frame, y=0, z=0))
    )


class Slow:
    """A listener that is stuck until it is let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.told: list[tuple[int, int]] = []

    def tell_judged(self, result, decisions, judged) -> None:
        assert len(decisions) == judged.decisions
        self.go_on.wait()
        self.told.append((judged.frame, judged.decisions))


class Broken:
    def tell_judged(self, result, decisions, judged) -> None:
        raise RuntimeError("no")


@pytest.mark.parametrize("order", [1, -1])
def test_a_listener_that_is_stuck_or_broken_holds_up_nobody(order: int) -> None:
    slow = Slow()
    decider = Decider(RULES, [slow, Broken()][::order], None)
    decider.start()
    calm = record(2, 0.1)
    for one in (record(0), record(1), *[calm] * 4998):  # would not end if it waited
        decider.tell(one)
    assert decider.lost > 0
    slow.go_on.set()
    wait_for(lambda: len(slow.told) + decider.lost == 5000)
    decider.close()
    assert slow.told[:3] == [(0, 1), (1, 1), (2, 0)]
    assert len(slow.told) + decider.lost == 5000
    assert decider.thread.problem is None


def test_what_waits_is_judged_before_it_stops() -> None:
    slow = Slow()
    decider = Decider(RULES, [slow], None)
    decider.start()
    for n in range(30):
        decider.tell(record(n))
    slow.go_on.set()
    decider.close()
    assert [frame for frame, _ in slow.told] == list(range(30))
    assert decider.describe()["decided"] == {"revisit": 20}
    assert decider.describe()["withheld"] == 10


def test_a_judge_that_fails_on_one_result_is_there_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    slow.go_on.set()
    decider = Decider(RULES, [slow], None)
    broken = record(0)
    broken.result = SimpleNamespace(source=broken.result.source)
    decider.start()
    decider.tell(broken)
    decider.tell(record(1))
    wait_for(lambda: slow.told == [(1, 1)])
    assert decider.thread.deaths == 1
    decider.close()


def test_the_rules_in_the_documentation_are_rules(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (DOCS / "closed-loop.md").read_text("utf-8"), re.DOTALL)
    path = tmp_path / "rules.toml"
    path.write_text(text, "utf-8")
    rules = read_rules(path)
    assert rules == rules.model_copy(update={"dry_run": True})
    assert [rule.words() for rule in rules.rules] == [
        "rescan: revisit when probability above 0.8, agreement above 0.7, not flagged saturated",
        "enough: stop when probability above 0.8 (until under 0.6), for 3 fields of view running",
    ]
