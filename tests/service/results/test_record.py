"""Identifiers of results, and their flags."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from senoscope.engine import Ensemble
from senoscope.fov import Fov, RequestRef
from senoscope.results.recent import RecentRecords
from senoscope.results.record import Record, ResultMaker, uuid7
from senoscope.scheduling.active_ensemble import fov_spec_of
from senoscope_client.models.result import Source
from support import miniature as mini


def test_identifiers_sort_in_the_order_of_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 4_000_000_000)  # the clock is corrected
    assert uuid7() > made[-1]


def test_a_clock_that_jumped_ahead_leaves_no_identifiers_in_the_future(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = time.time_ns()
    year_ns = 365 * 86_400 * 1_000_000_000
    before = uuid7()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now_ns + year_ns)
        wrong = [uuid7() for _ in range(10)]
    after = [uuid7() for _ in range(1000)]
    assert wrong == sorted(wrong)
    assert after == sorted(after)
    assert before < after[0] < wrong[0]
    assert len({*wrong, *after}) == 1010
    assert all(identifier.int >> 80 <= time.time_ns() // 1_000_000 + 1 for identifier in after)


def test_identifiers_from_many_threads_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: [uuid7() for _ in range(500)], range(16)))
    assert len({identifier for part in made for identifier in part}) == 8000
    assert all(part == sorted(part) for part in made)


def test_identifiers_are_of_version_7_and_hold_the_time() -> None:
    before = time.time_ns() // 1_000_000
    identifier = uuid7()
    assert (identifier.version, identifier.variant) == (7, "specified in RFC 4122")
    assert before <= identifier.int >> 80 <= before + 60_000


@pytest.mark.parametrize(
    ("usual", "rows", "words"),
    [
        (None, 2, None),
        (None, 50, "in 20.0% of its pixels; detail"),
        (0.0, 50, "in 20.0% of its pixels, more than 99 in 100 training images (0.0%); detail"),
        (0.15, 50, "in 20.0% of its pixels, more than 99 in 100 training images (15.0%); detail"),
        (0.25, 50, None),
        (0.0, 2, None),  # less than one in a hundred pixels is never worth a flag
    ],
)
def test_saturation_is_flagged_if_training_had_less(
    miniature: Path, tmp_path: Path, usual: float | None, rows: int, words: str | None
) -> None:
    """A range that excludes outliers does not include all bright structures."""
    folder = Path(shutil.copytree(miniature, tmp_path / "ensemble"))
    manifest = json.loads((folder / "ensemble.json").read_text())
    manifest["normalization"]["channels"][1]["saturated_p99"] = usual
    (folder / "ensemble.json").write_text(json.dumps(manifest))
    pixels = mini.dark()
    pixels[1, :rows] = mini.HIGH + 1
    with Ensemble.load(folder, device="cpu") as ensemble:
        (prediction,) = ensemble.predict(pixels)
        fov = Fov(pixels, Source(kind="upload"), spec=fov_spec_of(ensemble))
        maker = ResultMaker(ensemble, 24.0, linked=False)
        record = maker.make(fov, prediction, ensemble.model_range, 0.0, 1.0)
    flags = [flag for flag in record.result.flags if flag.code == "saturated"]
    assert [flag.channel for flag in flags] == (["TPEF"] if words else [])
    assert all(words in flag.message for flag in flags)
    assert record.saturated[1] == pytest.approx(rows / 250), "also counted if it is not flagged"


def make_records(folder: Path, count: int) -> list[Record]:
    """Return the records of a posted stack, whose pixels are views of the stack."""
    stack = np.stack([mini.dark()] * count)
    with Ensemble.load(folder, device="cpu", threads=1) as ensemble:
        spec = fov_spec_of(ensemble)
        maker = ResultMaker(ensemble, 24.0, linked=False)
        predictions = ensemble.predict(stack)
        request = RequestRef("a request", span=object())
        return [
            maker.make(
                Fov(pixels, Source(kind="upload"), spec=spec, request=request),
                prediction,
                ensemble.model_range,
                0.0,
                1.0,
            )
            for pixels, prediction in zip(stack, predictions, strict=True)
        ]


def test_recent_records_hold_no_other_memory_and_count_all_of_theirs(miniature: Path) -> None:
    records = make_records(miniature, 4)
    recent = RecentRecords(3 * records[0].nbytes)
    for record in records:
        record.json("grid")
        recent.add(record)
    assert recent.get(records[0].result.id) is None, "no room is left for the first one"
    for record in records[1:]:
        kept = recent.get(record.result.id)
        assert kept is not None
        assert kept.fov.pixels.flags.owndata
        np.testing.assert_array_equal(kept.fov.pixels, record.fov.pixels)
        assert kept.fov.request is None
        assert kept._encoded == {}
        held = kept.fov.pixels.nbytes + sum(
            array.nbytes for array in (*kept.prediction.gradcams, *kept.prediction.features)
        )
        assert kept.nbytes > held


def test_tiny_fields_of_view_do_not_fill_the_memory(miniature: Path) -> None:
    """A record takes kilobytes even if it has few pixels."""
    record = make_records(miniature, 1)[0]
    record = replace(record, fov=replace(record.fov, pixels=record.fov.pixels[:, :1, :1].copy()))
    recent = RecentRecords(20 * record.nbytes)
    made = [replace(record, result=record.result.model_copy(update={"id": uuid7()})) for _ in range(100)]
    for one in made:
        recent.add(one)
    assert sum(recent.get(one.result.id) is not None for one in made) == 20
    assert record.nbytes > 10_000
