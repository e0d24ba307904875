"""The C library that receives results, called like from LabVIEW."""

from __future__ import annotations

import json
import math
import time

import pytest

from support.c_programs import Library, publishing
from support.results_lines import FAULTS, results_line
from support.service_double import result

pytestmark = pytest.mark.system("libzmq")


@pytest.fixture(scope="module")
def sub(c_libraries):
    return Library(c_libraries, "subscribe")


def test_values_of_results_are_accessible_by_path(sub):
    sent = result(kind="stream", instrument="nlo-1", series_id='B2 "80 µm" \u2028 😀\n', frame=12)
    with publishing([b"result/stream/nlo-1", sent.model_dump_json().encode()]) as endpoint:
        results = sub.results_open(endpoint.encode(), b"result/stream/nlo-1", None, None)
        assert sub.results_next(results, 20_000) == 1
        assert json.loads(sub.results_json(results)) == sent.model_dump(mode="json")
        assert sub.results_text(results, b"label") == b"senescent"
        assert sub.results_text(results, b"source.series_id").decode() == sent.source.series_id
        assert sub.results_number(results, b"probability") == sent.probability
        assert sub.results_number(results, b"source.frame") == 12
        assert sub.results_number(results, b"timing_ms.total") == 3.5
        for path in (b"labe", b"label.x", b"source", b"", b".", b"source.", b"probability"):
            assert sub.results_text(results, path) is None
        for path in (b"probabilit", b"label", b"deadline_met", b"normalization.low"):
            assert math.isnan(sub.results_number(results, path))
        assert sub.results_rejected(results) == 0
        sub.results_close(results)
    silent = sub.results_open(b"tcp://127.0.0.1:1", None, None, None)
    assert sub.results_next(silent, 50) == 0
    assert sub.results_json(silent) == b""
    sub.results_close(silent)
    assert sub.results_open(b"nowhere", None, None, None) is None
    assert b"nowhere" in sub.results_error(None)


def test_escapes_in_texts_are_decoded(sub):
    text = 'é "\\/\b\f\n\r\t 😀 \x7f'
    escaped = json.dumps({"probability": 1e-0, "label": text}).replace("/", "\\/").encode()
    with publishing([b"result/", escaped]) as endpoint:
        results = sub.results_open(endpoint.encode(), None, None, None)
        assert sub.results_next(results, 20_000) == 1
        assert sub.results_text(results, b"label").decode() == text
        sub.results_close(results)


NO_RESULTS = [
    *([b"result/"], [b"result/", b""], [b"result/", b"{}"], [b"result/", b'{"label":"a"}']),
    *([b"result/", b'{"label":"a","probability":2}'], [b"result/", b'{"label":1,"probability":0.5}']),
    *(
        [b"result/", b'{"label":"a","probability":0.5}', b""],
        [b"result/", b'{"label":"\xff","probability":0.5}'],
    ),
    *([b"result/", b'{"label":"a","probability":"0.5"}'], [b"result/", b'{"label":"a","probability":0.5']),
    [b"result/", b'{"label":"a","probability":0.' + b"5" * 100 + b"}"],
]


def test_messages_that_are_not_results_are_skipped_and_counted(sub):
    good = [b"result/", b'{"label":"good","probability":0.5}']
    with publishing(*NO_RESULTS, good) as endpoint:
        results = sub.results_open(endpoint.encode(), None, None, None)
        for _ in range(2):  # all other messages are between two results
            before = sub.results_rejected(results)
            assert sub.results_next(results, 20_000) == 1
            assert sub.results_text(results, b"label") == b"good"
        assert sub.results_rejected(results) - before == len(NO_RESULTS)
        sub.results_close(results)


# Faults after which ZeroMQ does not reconnect by itself.
BROKEN = {"oversize", "random bytes"}


@pytest.mark.parametrize(
    "fault", [pytest.param(f, marks=pytest.mark.full if "greeting" in f else ()) for f in FAULTS]
)
def test_results_are_received_again_after_a_fault(sub, fault):
    good = [b"result/", b'{"label":"good","probability":0.5}']
    with results_line() as (socket, cable, endpoint):
        results = sub.results_open(endpoint.encode(), None, None, None)
        deadline = time.monotonic() + 60

        def until_received() -> None:
            while True:
                assert time.monotonic() < deadline
                socket.send_multipart(good)
                if sub.results_next(results, 200) == 1:
                    return

        until_received()
        while sub.results_next(results, 200):
            pass
        FAULTS[fault](socket, cable)
        # Messages that were sent before the fault do not count.
        while fault in BROKEN and not sub.results_reconnects(results):
            assert time.monotonic() < deadline
            assert sub.results_next(results, 100) >= 0
        until_received()
        sub.results_close(results)
