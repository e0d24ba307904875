"""The wire format and the Python clients of Senoscope: all that an acquisition PC installs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senoscope_client.aio import AsyncClient
    from senoscope_client.dataframe import to_dataframe
    from senoscope_client.decision import Decision, Judged
    from senoscope_client.errors import SenoscopeError
    from senoscope_client.http import Client
    from senoscope_client.live import LiveDecisions, LiveResults
    from senoscope_client.live_aio import AsyncLiveDecisions, AsyncLiveResults
    from senoscope_client.publisher import FramePublisher
    from senoscope_client.result import Result
    from senoscope_client.retries import Retries
    from senoscope_client.subscriber import DecisionSubscriber, ResultSubscriber
    from senoscope_client.unreachable import Unreachable
    from senoscope_client.wire import Index, Mosaic, Position, Timestamp, WireError

__all__ = [
    "AsyncClient",
    "AsyncLiveDecisions",
    "AsyncLiveResults",
    "Client",
    "Decision",
    "DecisionSubscriber",
    "FramePublisher",
    "Index",
    "Judged",
    "LiveDecisions",
    "LiveResults",
    "Mosaic",
    "Position",
    "Result",
    "ResultSubscriber",
    "Retries",
    "SenoscopeError",
    "Timestamp",
    "Unreachable",
    "WireError",
    "to_dataframe",
]

# Whoever needs only the wire format does not pay for sockets, and the engine must not import them.
_HOMES = {
    "AsyncClient": "aio",
    "AsyncLiveDecisions": "live_aio",
    "AsyncLiveResults": "live_aio",
    "Client": "http",
    "Decision": "decision",
    "DecisionSubscriber": "subscriber",
    "FramePublisher": "publisher",
    "Index": "wire",
    "Judged": "decision",
    "LiveDecisions": "live",
    "LiveResults": "live",
    "Mosaic": "wire",
    "Position": "wire",
    "Result": "result",
    "ResultSubscriber": "subscriber",
    "Retries": "retries",
    "SenoscopeError": "errors",
    "Timestamp": "wire",
    "Unreachable": "unreachable",
    "WireError": "wire",
    "to_dataframe": "dataframe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
