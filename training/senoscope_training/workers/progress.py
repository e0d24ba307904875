"""What a long command is doing just now, told to people or to a program."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table


@dataclass(frozen=True)
class Progress:
    """One step.

    Attributes
    ----------
    stage : str
        What begins now; ``done`` when the network, or the whole, is finished.
    network : str
        Which network; empty for the whole.
    detail : str
        For people.
    """

    stage: str
    network: str = ""
    detail: str = ""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""


class JsonReporter:
    """One JSON object per line on stdout, for a program that runs this one."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Write one line."""
        line = {**asdict(progress), "elapsed_s": round(time.monotonic() - self._start, 1)}
        print(json.dumps(line), flush=True)  # noqa: T201 - this is the program's output

    def __enter__(self) -> JsonReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class TextReporter:
    """A table that keeps itself up to date on a terminal, plain lines elsewhere; both on stderr."""

    def __init__(self, networks: tuple[str, ...], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._start = time.monotonic()
        self._since: dict[str, float] = {}
        self._state: dict[str, Progress] = {name: Progress("waiting", name) for name in networks}
        self._took: dict[str, float] = {}
        self._whole = Progress("starting")
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4)

    def __enter__(self) -> TextReporter:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Note it for the table, or print it."""
        now = time.monotonic()
        if progress.network:
            self._since.setdefault(progress.network, now)
            self._state[progress.network] = progress
            if progress.stage == "done":
                self._took[progress.network] = now - self._since[progress.network]
        else:
            self._whole = progress
        if not self._console.is_terminal:
            words = [progress.network, progress.stage, progress.detail]
            self._console.print(
                f"[{now - self._start:6.1f} s] {': '.join(word for word in words if word)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _table(self) -> Table:
        now = time.monotonic()
        whole = ": ".join(word for word in (self._whole.stage, self._whole.detail) if word)
        table = Table(title=f"{whole} ({now - self._start:.0f} s)", title_justify="left")
        for heading in ("network", "stage", "seconds", ""):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for name, progress in self._state.items():
            began = self._since.get(name)
            seconds = "" if began is None else f"{self._took.get(name, now - began):.0f}"
            table.add_row(name, progress.stage, seconds, progress.detail)
        return table
