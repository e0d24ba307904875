"""The wire format and the Python clients of Senoscope: the package that an acquisition PC installs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senoscope_client.errors import SenoscopeError, Unreachable
    from senoscope_client.http.async_client import AsyncClient
    from senoscope_client.http.client import Client
    from senoscope_client.http.live import LiveDecisions, LiveResults
    from senoscope_client.http.live_async import AsyncLiveDecisions, AsyncLiveResults
    from senoscope_client.http.retries import Retries
    from senoscope_client.models.decision import Decision, Judged
    from senoscope_client.models.result import Result
    from senoscope_client.tables import to_dataframe
    from senoscope_client.wire.messages import Index, Mosaic, Position, Timestamp, WireError
    from senoscope_client.zeromq.frame_publisher import FramePublisher
    from senoscope_client.zeromq.subscribers import DecisionSubscriber, ResultSubscriber

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

# Names are imported on first use: the wire format must not load sockets, nor may the engine.
_MODULES = {
    "errors": ("SenoscopeError", "Unreachable"),
    "http.async_client": ("AsyncClient",),
    "http.client": ("Client",),
    "http.live": ("LiveDecisions", "LiveResults"),
    "http.live_async": ("AsyncLiveDecisions", "AsyncLiveResults"),
    "http.retries": ("Retries",),
    "models.decision": ("Decision", "Judged"),
    "models.result": ("Result",),
    "tables": ("to_dataframe",),
    "wire.messages": ("Index", "Mosaic", "Position", "Timestamp", "WireError"),
    "zeromq.frame_publisher": ("FramePublisher",),
    "zeromq.subscribers": ("DecisionSubscriber", "ResultSubscriber"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
