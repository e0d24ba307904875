"""Results on their way to whoever wants them, from a real service without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_core import PydanticSerializationError

import miniature as mini
from runlogs import wait_for
from senoscope.fov import Fov
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope_client.result import Source


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
    unfit = service.submit_stack([Fov(mini.bright(), Source(kind="upload", file="\ud800"))])
    fine = service.submit_stack([Fov(mini.dark(), Source(kind="upload", file="fine"))])
    (record,) = fine.done.result(30)
    assert record.result.label == "control"
    with pytest.raises(PydanticSerializationError):
        unfit.done.result(30)
    assert not service.impairments()
    assert service.describe_stream()["engine"]["thread_deaths"]["delivery"] == 0
