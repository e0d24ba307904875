"""Results on their way to whoever wants them, from a real service without a server."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic_core import PydanticSerializationError

from senoscope.delivery import Delivery
from senoscope.fov import Fov
from senoscope.records import RecentRecords
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.store import RunLog
from senoscope.scheduler import Computed
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope_client.result import Source
from support import miniature as mini
from support.run_logs import wait_for


@pytest.fixture
def service(miniature: Path, tmp_path: Path) -> Iterator[Service]:
    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    settings = Settings(model=str(miniature), device="cpu", stream="", results="", database_url=url)
    service = Service(settings)
    service.start()
    wait_for(lambda: service.problem() is None)
    yield service
    service.close()


def test_a_result_that_has_no_json_fails_its_own_stack_and_no_other(service: Service) -> None:
    unfit = service.submit_stack(
        [Fov(mini.bright(), Source(kind="upload", file="\ud800"), spec=service.loaded.spec)]
    )
    fine = service.submit_stack(
        [Fov(mini.dark(), Source(kind="upload", file="fine"), spec=service.loaded.spec)]
    )
    (record,) = fine.done.result(30)
    assert record.result.label == "control"
    with pytest.raises(PydanticSerializationError):
        unfit.done.result(30)
    assert not service.impairments()
    assert service.describe_stream()["engine"]["thread_deaths"]["delivery"] == 0


def test_while_the_log_hesitates_only_so_many_results_wait(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold their pixels; further frames wait in their lane, which is bounded and counts its drops."""
    computed: list[Computed] = []
    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "_finish", lambda _, one: computed.append(one))
        service.submit_stack(
            [Fov(mini.bright(), Source(kind="upload", file="one"), spec=service.loaded.spec)]
        )
        wait_for(lambda: bool(computed))
    path = tmp_path / "other.sqlite3"
    keeper = LogKeeper(RunLog(f"sqlite:///{path}"))
    recent = RecentRecords(1)
    delivery = Delivery(recent, [], keeper)
    handed: list[int] = []
    keeper.start()
    wait_for(lambda: keeper.state == "ok")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        delivery.start()
        for n in range(100):
            live = replace(computed[0], stack=None)
            threading.Thread(
                target=lambda n=n, live=live: (delivery.deliver(live), handed.append(n)), daemon=True
            ).start()
        wait_for(lambda: len(handed) >= 32)
        time.sleep(0.1)  # far less than the log is waited for
        assert len(handed) < 70  # 32, and those that the log has been asked for
        other.execute("ROLLBACK")
    wait_for(lambda: keeper.describe()["written"] == 100)
    assert len(handed) == 100
    delivery.close()
    keeper.close()
