"""Errors of requests, one class per stable ``code``, shared by the service and its clients.

The stages of a posted stack, and the errors that each stage raises::

    body --limits--> bytes --image reader--> FOVs --scheduler--> results
          |                 |                      |
          PayloadTooLarge   UnsupportedMediaType   Busy
          Unauthorized      UnreadableImage        NotReady
          Forbidden         AmbiguousAxes
          RequestTimeout    WrongFrameSize, WrongChannelCount
                            NonFinitePixels, TooManyFields

The service sends these errors as RFC 9457 problem documents, from which the HTTP client restores them. Only
`Unreachable` is never sent: a client raises it itself.
"""

from __future__ import annotations

from typing import ClassVar

from senoscope_client.models.base import OpenModel


class Problem(OpenModel):
    """An RFC 9457 problem document (``application/problem+json``).

    Attributes
    ----------
    type : str
        URI reference of the kind of problem.
    title : str
        What kind of problem this is, the same for every occurrence.
    status : int
        HTTP status.
    detail : str
        What is wrong here, where, and what to do about it.
    code : str
        Stable machine-readable name of the kind of problem.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


class SenoscopeError(Exception):
    """Base of all errors that a caller of Senoscope can act on.

    Parameters
    ----------
    detail : str
        What is wrong, where, and what to do about it.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def problem(self) -> Problem:
        """Return this error as a problem document."""
        return Problem(
            type=f"urn:senoscope:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
        )


class InvalidRequest(SenoscopeError):
    """A parameter is missing, misspelt or out of range."""

    code, status, title = "invalid_request", 422, "Invalid request"


class NotFound(SenoscopeError):
    """The requested object does not exist, or no longer exists."""

    code, status, title = "not_found", 404, "Not found"


class Unauthorized(SenoscopeError):
    """The request carries no valid key."""

    code, status, title = "unauthorized", 401, "Unauthorized"


class Conflict(SenoscopeError):
    """The request cannot be carried out now, or contradicts the current state."""

    code, status, title = "conflict", 409, "Conflict"


class ModelRejected(SenoscopeError):
    """An ensemble cannot be loaded; the current one stays in use."""

    code, status, title = "model_rejected", 422, "Model rejected"


class Forbidden(SenoscopeError):
    """The key lacks the scope that the request needs, or the request was sent by a page of another origin."""

    code, status, title = "forbidden", 403, "Forbidden"


class RequestTimeout(SenoscopeError):
    """The request was received too slowly."""

    code, status, title = "request_timeout", 408, "Request timeout"


class UnsupportedMediaType(SenoscopeError):
    """The body is neither a TIFF file nor an NPY array."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class UnreadableImage(SenoscopeError):
    """The file is declared as TIFF or NPY, but cannot be read as such."""

    code, status, title = "unreadable_image", 422, "Unreadable image"


class AmbiguousAxes(SenoscopeError):
    """The file does not define the order of its axes or channels."""

    code, status, title = "ambiguous_axes", 422, "Ambiguous axes"


class WrongFrameSize(SenoscopeError):
    """The size of the FOVs differs from the size that the ensemble was trained on."""

    code, status, title = "wrong_frame_size", 422, "Wrong frame size"


class WrongChannelCount(SenoscopeError):
    """The number of channels differs from the number that the ensemble was trained on."""

    code, status, title = "wrong_channel_count", 422, "Wrong channel count"


class NonFinitePixels(SenoscopeError):
    """A pixel is NaN or infinite."""

    code, status, title = "non_finite_pixels", 422, "Non-finite pixels"


class PayloadTooLarge(SenoscopeError):
    """The body, or its declared decompressed size, exceeds a limit in bytes."""

    code, status, title = "payload_too_large", 413, "Payload too large"


class TooManyFields(SenoscopeError):
    """The stack holds more FOVs than one request may contain."""

    code, status, title = "too_many_fields", 413, "Too many fields of view"


class Busy(SenoscopeError):
    """The queue is full; try again after ``retry_after_s``."""

    code, status, title = "busy", 503, "Busy"

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class NotReady(SenoscopeError):
    """The service is starting or stopping, or a required part of it has failed."""

    code, status, title = "not_ready", 503, "Not ready"


class InsufficientStorage(SenoscopeError):
    """The disk of the service is full."""

    code, status, title = "insufficient_storage", 507, "Insufficient storage"


class LogUnavailable(SenoscopeError):
    """The run log is turned off, or cannot be read or written now."""

    code, status, title = "log_unavailable", 503, "Run log unavailable"


class Unreachable(SenoscopeError):
    """There is no service at the address, or the connection to it was lost."""

    code, status, title = "unreachable", 503, "Service unreachable"


def error_from_problem(problem: Problem) -> SenoscopeError:
    """Return the error that a problem document describes; the base class for unknown codes."""
    for kind in SenoscopeError.__subclasses__():
        if kind.code == problem.code:
            return kind(problem.detail)
    return SenoscopeError(f"{problem.title} ({problem.status} {problem.code}): {problem.detail}")
