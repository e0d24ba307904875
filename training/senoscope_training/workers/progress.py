"""Progress of long commands, printed for users or as JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table


@dataclass(frozen=True)
class Progress:
    """A step of a network, or of a command as a whole."""

    stage: str
    """The stage that begins; ``done`` when the network, or the command, is finished."""
    network: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.network, self.stage, self.detail) if part)


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Ignore progress."""


class JsonReporter:
    """Prints progress on stdout as one JSON object per line, for programs that start the command."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Print one line."""
        line = {**asdict(progress), "elapsed_s": round(time.monotonic() - self._start, 1)}
        print(json.dumps(line), flush=True)  # noqa: T201 - this is the program's output

    def __enter__(self) -> JsonReporter:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class TextReporter:
    """Prints progress on stderr: a table that is updated on a terminal, plain lines otherwise."""

    def __init__(self, networks: tuple[str, ...], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._start = time.monotonic()
        self._since: dict[str, float] = {}
        self._state: dict[str, Progress] = {name: Progress("waiting", name) for name in networks}
        self._took: dict[str, float] = {}
        self._command = Progress("starting")
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4)

    def __enter__(self) -> TextReporter:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Update the table, or print a line."""
        now = time.monotonic()
        if progress.network:
            self._since.setdefault(progress.network, now)
            self._state[progress.network] = progress
            if progress.stage == "done":
                self._took[progress.network] = now - self._since[progress.network]
        else:
            self._command = progress
        if not self._console.is_terminal:
            line = f"[{now - self._start:6.1f} s] {progress}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        now = time.monotonic()
        table = Table(title=f"{self._command} ({now - self._start:.0f} s)", title_justify="left")
        for heading in ("network", "stage", "seconds", ""):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for name, progress in self._state.items():
            began = self._since.get(name)
            seconds = "" if began is None else f"{self._took.get(name, now - began):.0f}"
            table.add_row(name, progress.stage, seconds, progress.detail)
        return table
