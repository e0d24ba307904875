"""Which tests share a worker, and which start first."""

from __future__ import annotations

import pytest

from support import scheduling


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/service/api/test_guard.py::test_a[b::c]", "tests/service/api/test_guard.py"),
        ("tests/dashboard/test_page.py::test_a", "chromium"),
        ("tests/endurance/test_dashboard.py::test_a", "chromium"),
        ("tests/endurance/test_soak.py::test_a", "tests/endurance/test_soak.py"),
        ("tests/training/networks/test_trainable.py::test_a", "tensorflow"),
        ("tests/training/report/test_report.py::test_a", "tests/training/report/test_report.py"),
    ],
)
def test_tests_are_grouped_by_folder_or_module(nodeid: str, group: str) -> None:
    assert scheduling.group_of(nodeid) == group


@pytest.mark.parametrize("alone", [(), ("unshare",)])
def test_pages_are_read_side_by_side_where_each_has_its_own_network(
    monkeypatch: pytest.MonkeyPatch, alone: tuple[str, ...]
) -> None:
    monkeypatch.setattr(scheduling, "network_of_its_own", lambda: alone)
    (module,) = scheduling.INDEPENDENT
    groups = {scheduling.group_of(f"{module}::test_a[{page}]") for page in ("one", "two")}
    assert len(groups) == (2 if alone else 1)


def test_what_takes_longest_starts_first() -> None:
    nodeids = ["tests/service/api/test_guard.py::test_a", "tests/dashboard/test_page.py::test_a"]
    assert sorted(nodeids, key=scheduling.start_order) == nodeids[::-1]
