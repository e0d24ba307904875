"""Where and when a field of view was acquired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Self

from pydantic import Field

from senoscope_client.models.base import StrictModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_S = 1_000_000_000
LARGEST_INTEGER: Final = 2**53 - 1
"""JSON numbers beyond this lose digits in programs that store them as doubles."""

Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]


class Position(StrictModel):
    """A stage position, in micrometres."""

    x: float
    y: float
    z: float


class Index(StrictModel):
    """Indices of a frame in its acquisition, each from 0.

    Attributes
    ----------
    p : int
        Stage position.
    t : int
        Time point.
    z : int
        Slice of the z stack.
    """

    p: Count = 0
    t: Count = 0
    z: Count = 0


class Timestamp(StrictModel):
    """A time by the acquisition PC's clock.

    Attributes
    ----------
    seconds : int
        Whole seconds since 1970-01-01T00:00:00Z, until the end of the year 9999.
    nanoseconds : int
        The rest, 0 to 999 999 999.
    """

    seconds: Annotated[int, Field(ge=0, le=253_402_300_799)]
    nanoseconds: Annotated[int, Field(ge=0, lt=_NS_PER_S)]

    @classmethod
    def from_ns(cls, time_ns: int) -> Self:
        """Create a time stamp from nanoseconds since the epoch, as returned by `time.time_ns`."""
        seconds, nanoseconds = divmod(time_ns, _NS_PER_S)
        return cls(seconds=seconds, nanoseconds=nanoseconds)

    @classmethod
    def from_datetime(cls, time: datetime) -> Self:
        """Create a time stamp from a time with a time zone.

        Raises
        ------
        ValueError
            If the time has no time zone.
        """
        if time.utcoffset() is None:
            raise ValueError("a time stamp needs a time zone; use datetime.now(UTC), for example")
        since = time - _EPOCH
        return cls(seconds=since.days * 86_400 + since.seconds, nanoseconds=since.microseconds * 1000)

    def to_ns(self) -> int:
        """Return the nanoseconds since the epoch."""
        return self.seconds * _NS_PER_S + self.nanoseconds

    def to_datetime(self) -> datetime:
        """Return the time in UTC, truncated to microseconds."""
        return _EPOCH + timedelta(seconds=self.seconds, microseconds=self.nanoseconds // 1000)


class Mosaic(StrictModel):
    """The grid of stage positions that a series covers."""

    rows: Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
    columns: Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
