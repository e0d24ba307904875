"""The queues of the live hub for slow clients."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import get_args

import numpy as np

from senoscope.api.routes.live import LiveHub
from senoscope.engine import Ensemble
from senoscope.fov import Fov
from senoscope.results.delivery import DeliveryTimes
from senoscope.results.record import Record, ResultMaker
from senoscope.scheduling.active_ensemble import fov_spec_of
from senoscope_client.models.result import CamMode, Source
from support import miniature as mini


def records_of_a_stack(miniature: Path) -> tuple[list[Record], weakref.ref[np.ndarray]]:
    """Return the records of a stack, and the stack that their pixels are views of."""
    stack = np.stack([mini.bright(), mini.dark()])
    with Ensemble.load(miniature, device="cpu") as ensemble:
        maker = ResultMaker(ensemble, 100.0, linked=True)
        spec = fov_spec_of(ensemble)
        records = [
            maker.make(
                Fov(pixels, Source(kind="upload", frame=n), spec=spec),
                prediction,
                ensemble.model_range,
                0.0,
                1.0,
            )
            for n, (pixels, prediction) in enumerate(zip(stack, ensemble.predict(stack), strict=True))
        ]
    return records, weakref.ref(stack)


def test_results_that_wait_for_a_slow_client_hold_no_pixels(miniature: Path) -> None:
    async def lag_behind() -> None:
        hub = LiveHub(backlog=10, max_clients=1)
        client = hub.join("grid")
        records, stack = records_of_a_stack(miniature)
        expected = [[record.json(cam) for cam in get_args(CamMode)] for record in records]
        for record in records:
            hub.on_result(record, DeliveryTimes(logged_s=0.0, notified_s=0.0))
        del record, records
        await asyncio.sleep(0)  # the hub's turn
        gc.collect()
        assert stack() is None
        waiting = [await client.waiting.get() for _ in expected]
        texts = [[one(cam) for cam in get_args(CamMode)] for one in waiting if one is not None]
        assert texts == expected

    asyncio.run(lag_behind())
