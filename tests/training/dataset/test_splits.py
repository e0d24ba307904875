"""Splits of data sets: complete, disjoint, with both classes, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscope_training.config import SplitConfig
from senoscope_training.dataset.model import DataSet, DataSetError, Entry
from senoscope_training.dataset.splits import make_folds, split_record, validation_split
from support.labelled_folders import NAMES, SIZE, config, good, write


def data_set(labels, groups=None, splits=None) -> DataSet:
    count = len(labels)
    entries = tuple(
        Entry(
            f"{n:04d}.tif",
            bool(labels[n]),
            (groups or [None] * count)[n],
            (splits or [None] * count)[n],
            f"{n}",
        )
        for n in range(count)
    )
    return DataSet(Path("x"), ("control", "senescent"), NAMES, entries)


labels_of_both = st.lists(st.booleans(), min_size=4, max_size=60).filter(
    lambda labels: 2 <= sum(labels) <= len(labels) - 2
)
fractions = st.floats(0.05, 0.95)
seeds = st.integers(0, 2**31 - 1)


@st.composite
def plates(draw, least: int = 2, both: bool = True):
    """Draw labels and groups; with ``both``, each group has both classes."""
    names = [f"plate {n}" for n in range(draw(st.integers(least, 16)))]
    labels: list[bool] = []
    groups: list[str] = []
    for name in names:
        mine = draw(st.lists(st.booleans(), min_size=0 if both else 1, max_size=8)) + [True, False] * both
        labels += mine
        groups += [name] * len(mine)
    return labels, groups


@settings(deadline=None, max_examples=60)
@given(labels_of_both, fractions, seeds)
def test_a_split_by_fov_is_stratified(labels, fraction, seed):
    made = data_set(labels)
    (fold,) = make_folds(made, SplitConfig(by="fov", test_fraction=fraction), seed)
    assert fold.name == "split"
    assert sorted([*fold.train, *fold.test]) == list(range(len(labels)))
    assert (np.diff(fold.train) > 0).all()
    assert (np.diff(fold.test) > 0).all()
    truth = made.labels
    for positive in (False, True):
        total = int((truth == positive).sum())
        taken = int((truth[fold.test] == positive).sum())
        assert 1 <= taken <= total - 1
        assert abs(taken - fraction * total) <= 0.5 or taken in (1, total - 1)


@settings(deadline=None, max_examples=60)
@given(plates(), fractions, seeds)
def test_a_split_by_group_keeps_groups_whole(case, fraction, seed):
    labels, groups = case
    made = data_set(labels, groups)
    (fold,) = make_folds(made, SplitConfig(by="group", test_fraction=fraction), seed)
    assert sorted([*fold.train, *fold.test]) == list(range(len(labels)))
    assert not {groups[n] for n in fold.train} & {groups[n] for n in fold.test}
    for side in (fold.train, fold.test):
        assert set(made.labels[side]) == {False, True}
    (again,) = make_folds(made, SplitConfig(by="group", test_fraction=fraction), seed)
    np.testing.assert_array_equal(fold.test, again.test)


@settings(deadline=None, max_examples=60)
@given(plates(least=2), fractions, seeds, st.sampled_from(["fov", "column", "group", "leave-one-group-out"]))
def test_validation_is_disjoint_and_has_both_classes(case, fraction, seed, by):
    labels, groups = np.array(case[0]), case[1]
    train, validation = validation_split(labels, groups, by, fraction, seed)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert set(labels[train]) == set(labels[validation]) == {False, True}
    shared = {groups[n] for n in train} & {groups[n] for n in validation}
    if "group" in by and len(set(groups)) >= 3:
        assert not shared


def test_groups_are_as_close_to_the_fraction_as_possible():
    # Of the subsets of 1, 2, 3 and 6 pairs, only that of 3 is a quarter.
    groups = [name for name, pairs in zip("abcd", (1, 2, 3, 6), strict=True) for _ in range(2 * pairs)]
    labels = [bool(n % 2) for n in range(len(groups))]
    for seed in range(10):
        (fold,) = make_folds(data_set(labels, groups), SplitConfig(by="group", test_fraction=0.25), seed)
        assert {groups[n] for n in fold.test} in ({"c"}, {"a", "b"})


def test_seeds_differ_and_are_reproducible():
    made = data_set([bool(n % 2) for n in range(100)])
    tests = [tuple(make_folds(made, SplitConfig(), seed)[0].test) for seed in (0, 1, 0)]
    assert tests[0] == tests[2] != tests[1]
    labels, groups = made.labels, [None] * 100
    drawn = [tuple(validation_split(labels, groups, "fov", 0.25, seed)[1]) for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_the_split_of_a_seed_never_changes():
    # Experiments are resumed, and repeated on other machines and with later versions.
    made = data_set([bool(n % 2) for n in range(16)], [f"p{n // 4}" for n in range(16)])
    (by_fov,) = make_folds(made, SplitConfig(by="fov", test_fraction=0.25), 7)
    (by_group,) = make_folds(made, SplitConfig(by="group", test_fraction=0.25), 7)
    _, validation = validation_split(made.labels, made.groups, "fov", 0.25, 7)
    assert (list(by_fov.test), list(by_group.test), list(validation)) == PINNED


PINNED = ([2, 3, 6, 15], [12, 13, 14, 15], [6, 7, 11, 12])


def test_the_numbers_of_the_paper():
    labels = [n < 112 for n in range(224)]
    (fold,) = make_folds(data_set(labels), SplitConfig(), 0)
    assert (len(fold.train), len(fold.test)) == (170, 54)
    train, validation = validation_split(np.array(labels)[fold.train], [None] * 170, "fov", 43 / 170, 0)
    assert (len(train), len(validation)) in {(126, 44), (127, 43), (128, 42)}


def test_the_order_of_the_files_on_disk_does_not_matter(tmp_path):
    from senoscope_training.dataset.reading import read_data_set

    files = {
        f"{'control' if name[0] == 'c' else 'senescent'}/{name}": data for name, data in good(12).items()
    }
    straight = write(tmp_path / "a", files)
    reversed_files = write(tmp_path / "b", dict(reversed(files.items())))
    first, second = (read_data_set(config(root), SIZE).data_set for root in (straight, reversed_files))
    records = [split_record(one, make_folds(one, SplitConfig(), 3)) for one in (first, second)]
    assert records[0] == records[1]
    (record,) = records[0].values()
    assert {row["file"] for side in ("train", "test") for row in record[side]} == set(files)
    hashes = {entry.file: entry.sha256 for entry in first.entries}
    assert all(row["sha256"] == hashes[row["file"]] for row in record["test"])


def test_a_split_by_column():
    made = data_set([0, 1, 0, 1], splits=["test", "train", "train", "test"])
    (fold,) = make_folds(made, SplitConfig(by="column"), 0)
    with pytest.raises(DataSetError, match="test does not have both classes"):
        make_folds(data_set([0, 1, 0], splits=["train", "train", "test"]), SplitConfig(by="column"), 0)
    assert (list(fold.train), list(fold.test)) == ([1, 2], [0, 3])


def test_leave_one_group_out():
    groups = ["b/1", "b?1", "a", "a", "CON", "CON", "config.yaml", "config.yaml"]
    labels = [1, 0, 0, 1, 0, 1, 1, 1]
    folds = make_folds(data_set(labels, groups), SplitConfig(by="leave-one-group-out"), 0)
    names = {fold.name: sorted({groups[n] for n in fold.test}) for fold in folds}
    assert names == {
        "group_CON": ["CON"],
        "a": ["a"],
        "b_1": ["b/1"],
        "b_1_2": ["b?1"],
        "group_config.yaml": ["config.yaml"],
    }
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(8))
    notes = {fold.name: fold.note for fold in folds}
    assert not notes["a"]
    assert "has only senescent" in notes["b_1"]
    assert "has only control" in notes["b_1_2"]


def test_leave_some_groups_out():
    made = data_set([0, 1, 0, 1, 0, 1], ["a", "a", "b", "b", "c", "c"])
    folds = make_folds(made, SplitConfig(by="leave-one-group-out", groups=("c", "a")), 0)
    assert [fold.name for fold in folds] == ["a", "c"]


@pytest.mark.parametrize(
    ("made", "split", "message"),
    [
        (data_set([0, 1, 1]), {"by": "fov"}, "two fields of view of each class"),
        (data_set([0, 1], splits=["train", None]), {"by": "column"}, "0001.tif.* split.by: fov or group"),
        (data_set([0, 1, 0, 1]), {"by": "group"}, "0000.tif.* column `group`"),
        (data_set([0, 1], ["a", "a"]), {"by": "leave-one-group-out"}, "all files are of 'a'.* split.by: fov"),
        (
            data_set([0, 1, 0], ["a", "a", "b"]),
            {"by": "group"},
            "a has 1 control and 1 senescent; b has 1 control",
        ),
        (
            data_set([0, 1, 0], ["a", "a", "b"]),
            {"by": "leave-one-group-out"},
            "without the group 'a', training",
        ),
        (
            data_set([0, 1, 0, 1], ["plate1", "plate1", "b", "b"]),
            {"by": "leave-one-group-out", "groups": ("plat1",)},
            "has 'plat1'.*did you mean 'plate1'.*the groups are b, plate1",
        ),
    ],
)
def test_an_impossible_split_is_reported(made, split, message):
    with pytest.raises(DataSetError, match=message):
        make_folds(made, SplitConfig(**split), 0)


def test_validation_needs_two_of_each_class():
    with pytest.raises(DataSetError, match="two training fields of view of each class"):
        validation_split(np.array([True, False, False]), [None] * 3, "fov", 0.25, 0)


def test_validation_is_by_fov_if_groups_cannot_be_split():
    # All of one class is in one group.
    labels = np.array([True, True, False, False])
    train, validation = validation_split(labels, ["a", "a", "b", "c"], "group", 0.5, 0)
    assert set(labels[train]) == set(labels[validation]) == {False, True}
