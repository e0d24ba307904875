"""Progress of a posted stack, as one line on a terminal."""

from __future__ import annotations

import threading
import time
from typing import Final, Self, TextIO

from senoscope_client.errors import SenoscopeError
from senoscope_client.http.live import LiveResults

_BAR: Final = 20
_EVERY_S: Final = 0.1
_MIB: Final = 1024 * 1024


class StackProgress:
    """Shows bytes sent, then fields of view classified, of one file; a context manager.

    It is an `operations.Progress`. The service responds when the whole stack is classified. Until then, the
    number of classified fields of view is counted from the results that it publishes to live clients; if
    these cannot be received, only the time is shown.

    Parameters
    ----------
    out : text file
        On a terminal the line is redrawn; otherwise only its last state is written.
    title : str
        Such as ``2/3 well-B.tif``.
    name : str
        Of the file, without its folder.
    base_url : str
    api_key : str or None
    """

    def __init__(self, out: TextIO, title: str, name: str, base_url: str, api_key: str | None) -> None:
        self._out = out
        self._title = title
        self._name = name
        self._sent = (0, 0)
        self._classified = 0
        self._started_s = time.monotonic()
        self._last_drawn_s = 0.0
        self._width = 0
        self._done = threading.Event()
        try:
            self._live: LiveResults | None = LiveResults(base_url, timeout_s=None, api_key=api_key)
        except SenoscopeError:  # the stack can be posted without it
            self._live = None
        self._thread = threading.Thread(target=self._count_results, name="progress", daemon=True)

    def __call__(self, sent: int, size: int) -> None:
        """Show that ``sent`` of ``size`` bytes were sent."""
        self._sent = (sent, size)
        self._draw()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._live is not None:
            self._live.close()
        if kind is None:
            self._draw(last=True)
            print(file=self._out, flush=True)

    def _count_results(self) -> None:
        while not self._done.is_set():
            if self._live is None:
                self._done.wait(_EVERY_S)
            else:
                self._live.timeout_s = _EVERY_S
                try:
                    source = next(self._live).source
                    self._classified += source.kind == "upload" and source.file == self._name
                except TimeoutError:
                    pass
                except (SenoscopeError, StopIteration):
                    self._live.close()
                    self._live = None
            self._draw()

    def _draw(self, *, last: bool = False) -> None:
        now_s = time.monotonic()
        if not last and (not self._out.isatty() or now_s - self._last_drawn_s < _EVERY_S):
            return
        self._last_drawn_s = now_s
        line = f"{self._title}  {self._state_text(now_s)}"
        start = "\r" if self._out.isatty() else ""
        print(start + line.ljust(self._width), end="", file=self._out, flush=True)
        self._width = len(line)

    def _state_text(self, now_s: float) -> str:
        sent, size = self._sent
        if sent < size:
            filled = _BAR * sent // size
            bar = "#" * filled + "-" * (_BAR - filled)
            return f"[{bar}] {sent / _MIB:.1f} of {size / _MIB:.1f} MiB sent"
        counted = f", {self._classified} fields of view classified" if self._classified else ""
        return f"{size / _MIB:.1f} MiB sent{counted}, {now_s - self._started_s:.0f} s"
