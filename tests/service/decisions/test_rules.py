"""Rule files: valid and invalid ones, and the decisions of their rules."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from senoscope.decisions.judge import Judge
from senoscope.decisions.rules import RulesError, read_rules
from senoscope_client.models.result import Flag, Result, Uncertainty
from senoscope_client.wire.messages import Index, Position
from support.run_logs import SERIES, result

RESCAN = '[[rules]]\nname = "rescan"\naction = "revisit"\nwhen.probability = { above = 0.8 }\n'
STOP = (
    '[[rules]]\nname = "enough"\naction = "stop"\nrunning = 3\n'
    "when.probability = { above = 0.8, release = 0.6 }\n"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text)
    return path


def judge(folder: Path, text: str, **more) -> Judge:
    return Judge(read_rules(written(folder, text)), **more)


def fov(frame: int, probability: float = 0.25, *, x: float | None = None, **changes) -> Result:
    """Create a result, by default at its own place."""
    entropy, codes = changes.pop("entropy", 0.5), changes.pop("flags", [])
    place = Position(x=100.0 * frame if x is None else x, y=0, z=0)
    made = result(frame, probability=probability, **({"position_um": place} | changes))
    return made.model_copy(
        update={
            "uncertainty": Uncertainty(entropy=entropy, mutual_information=0.1, agreement=1),
            "flags": [Flag(code=code, message="") for code in codes],
        }
    )


def frames_decided(judge: Judge, fovs: list[Result]) -> list[tuple[str, int]]:
    return [(d.action, d.frame) for one in fovs for d in judge.judge(one)]


def series_of(probabilities: list[float], **changes) -> list[Result]:
    return [fov(n, p, **changes) for n, p in enumerate(probabilities)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = [", "not TOML"),
        ("", "rules: missing"),
        ("rules = []", "rules: .*at least 1"),
        ("dry_rum = false\n" + RESCAN, "dry_rum: unknown key; did you mean dry_run"),
        (RESCAN + "wehn.label = 'x'", r"rules\[0\] 'rescan'\.wehn: unknown key; did you mean when"),
        (RESCAN.replace("above", "over"), r"rules\[0\] 'rescan'\.when\.probability\.over: unknown key"),
        (RESCAN.replace("0.8", "80"), r"'rescan'\.when\.probability\.above: .*1 \(not 80\)"),
        (RESCAN.replace("0.8", "nan"), r"probability\.above: .*(finite|equal)"),
        (RESCAN.replace("above = 0.8", "above = 0.8, below = 0.9"), "either above or below"),
        (RESCAN.replace("above = 0.8", "release = 0.8"), "either above or below"),
        (RESCAN.replace("above = 0.8", "above = 0.8, release = 0.9"), "release must not be more"),
        (RESCAN.replace("above = 0.8", "below = 0.8, release = 0.7"), "release must not be less"),
        (RESCAN.replace("when.probability = { above = 0.8 }", "when = {}"), "has no condition"),
        (RESCAN.replace("revisit", "explode"), r"\.action: .*'revisit', 'skip' or 'stop'"),
        (RESCAN + RESCAN, "two rules are named 'rescan'"),
        (RESCAN + "when.flags_present = ['a']\nwhen.flags_absent = ['a']", "flag a both"),
        (RESCAN + "when.flags_absent = ['Not a code']", "flags_absent.*such as saturated"),
        (RESCAN + "running = 0", r"\.running: .*1"),
        ("[limits]\nmax_revisits = -1\n" + RESCAN, r"limits\.max_revisits: .*0 \(not -1\)"),
        ("rules = 'all'", "rules: .*tuple"),
    ],
)
def test_an_invalid_file_is_reported_with_key_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RulesError, match=rf"rules\.toml.*{message}"):
        read_rules(written(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RulesError, match="UTF-8"):
        read_rules(path)


def test_rules_are_a_dry_run_by_default(tmp_path: Path) -> None:
    (decision,) = judge(tmp_path, RESCAN).judge(fov(0, 0.9))
    assert decision.dry_run
    (decision,) = judge(tmp_path, "dry_run = false\n" + RESCAN).judge(fov(0, 0.9))
    assert not decision.dry_run
    assert (decision.action, decision.rule, decision.series_uid) == ("revisit", "rescan", SERIES)
    assert decision.reason == "probability 0.900 is above 0.8; revisit 1 of at most 20"


def test_a_value_equal_to_the_bound_does_not_meet_it(tmp_path: Path) -> None:
    assert frames_decided(judge(tmp_path, RESCAN), series_of([0.8, 0.81])) == [("revisit", 1)]


def test_a_rule_holds_until_the_release_threshold(tmp_path: Path) -> None:
    text = RESCAN.replace("above = 0.8", "above = 0.8, release = 0.6")
    found = frames_decided(judge(tmp_path, text), series_of([0.7, 0.9, 0.6, 0.59, 0.7, 0.85]))
    assert [frame for _, frame in found] == [1, 2, 5]


def test_a_threshold_may_be_an_upper_bound(tmp_path: Path) -> None:
    text = (
        '[[rules]]\nname = "sure"\naction = "skip"\n[rules.when]\n'
        "entropy = { below = 0.3, release = 0.4 }\nlabel = 'control'\n"
    )
    fovs = [fov(n, 0.1, entropy=e) for n, e in enumerate([0.3, 0.29, 0.4, 0.41, 0.35])]
    assert frames_decided(judge(tmp_path, text), fovs) == [("skip", 1), ("skip", 2)]
    assert frames_decided(judge(tmp_path, text), [fov(0, 0.9, entropy=0.1)]) == []


def test_flags_may_be_required_or_excluded(tmp_path: Path) -> None:
    text = RESCAN + "when.flags_present = ['odd']\nwhen.flags_absent = ['saturated', 'dim']\n"
    flags = [[], ["odd"], ["odd", "dim"], ["odd", "else"]]
    fovs = [fov(n, 0.9, flags=codes) for n, codes in enumerate(flags)]
    assert [frame for _, frame in frames_decided(judge(tmp_path, text), fovs)] == [1, 3]


def test_stop_is_decided_each_time_its_rule_begins_to_hold(tmp_path: Path) -> None:
    fovs = series_of([0.9, 0.9, 0.7, 0.9, 0.9, 0.9, 0.7, 0.9, 0.5, 0.9, 0.9, 0.9])
    assert frames_decided(judge(tmp_path, STOP), fovs) == [("stop", 5), ("stop", 11)]


def test_a_missing_frame_ends_a_run(tmp_path: Path) -> None:
    fovs = [fov(n, 0.9) for n in (0, 1, 3, 4, 5)]
    assert frames_decided(judge(tmp_path, STOP), fovs) == [("stop", 5)]


def test_series_are_judged_independently(tmp_path: Path) -> None:
    one = judge(tmp_path, STOP)
    for frame in range(2):
        assert one.judge(fov(frame, 0.9)) == []
        assert one.judge(fov(frame, 0.1, series_uid=uuid.UUID(int=8))) == []
    assert [d.series_uid for d in one.judge(fov(2, 0.9))] == [SERIES]
    assert one.judge(fov(2, 0.9, series_uid=uuid.UUID(int=8))) == []


def test_results_without_a_series_are_not_judged(tmp_path: Path) -> None:
    posted = fov(0, 0.9, kind="upload", series_uid=None, series_id=None)
    assert judge(tmp_path, RESCAN).judge(posted) == []


def test_of_conflicting_rules_the_first_applies(tmp_path: Path) -> None:
    skip = RESCAN.replace("rescan", "leave").replace("revisit", "skip").replace("0.8", "0.5")
    one = judge(tmp_path, RESCAN + skip + STOP.replace("running = 3", "running = 1"))
    found = [(d.action, d.rule) for d in one.judge(fov(0, 0.9))]
    assert found == [("revisit", "rescan"), ("stop", "enough")]
    assert [d.action for d in one.judge(fov(1, 0.7))] == ["skip"]


def test_revisits_of_a_place_are_limited(tmp_path: Path) -> None:
    one = judge(tmp_path, "[limits]\nmax_revisits_per_place = 2\nplace_radius_um = 5\n" + RESCAN)
    # The stage returns to almost the same position, and the result is the same.
    fovs = [fov(n, 0.9, x=x) for n, x in enumerate([0, 3, -1, 1, 50])]
    assert [frame for _, frame in frames_decided(one, fovs)] == [0, 1, 4]
    assert one.withheld == 2


def test_a_place_without_a_position_is_identified_by_its_index(tmp_path: Path) -> None:
    one = judge(tmp_path, RESCAN)
    places = [Index(p=0), Index(p=0, t=1), Index(p=1), None]
    fovs = [fov(n, 0.9, position_um=None, index=index) for n, index in enumerate(places)]
    assert [frame for _, frame in frames_decided(one, fovs)] == [0, 2]
    assert one.withheld == 2


def test_revisits_of_a_series_are_limited(tmp_path: Path) -> None:
    one = judge(tmp_path, "[limits]\nmax_revisits = 3\n" + RESCAN)
    assert len(frames_decided(one, series_of([0.9] * 500))) == 3
    assert one.withheld == 497


def test_limits_include_earlier_decisions(tmp_path: Path) -> None:
    text = "dry_run = false\n[limits]\nmax_revisits = 3\n" + RESCAN
    first = judge(tmp_path, text)
    made = [d for one in series_of([0.9, 0.9]) for d in first.judge(one)]
    again = judge(tmp_path, text, earlier=lambda uid: [d for d in made if d.series_uid == uid])
    fovs = [fov(2, 0.9, x=100), *(fov(n, 0.9) for n in (3, 4, 5))]
    assert frames_decided(again, fovs) == [("revisit", 3)]
    trial = judge(tmp_path, text.replace("false", "true"), earlier=lambda _: made)
    assert len(frames_decided(trial, fovs)) == 3


def test_limits_hold_for_more_series_than_are_kept_in_memory(tmp_path: Path) -> None:
    made = []
    one = judge(tmp_path, RESCAN, earlier=lambda uid: [d for d in made if d.series_uid == uid])
    for _ in range(2):
        for n in range(100):
            made += one.judge(fov(0, 0.9, series_uid=uuid.UUID(int=n)))
    assert len(made) == 100
