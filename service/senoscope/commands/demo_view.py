"""The output of ``senoscope demo``: a table of live results, compared with the simulated truth."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TypedDict

import numpy as np
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from senoscope_client.models.result import Result
from senoscope_client.models.status import StreamStatus
from senoscope_client.simulation.synthetic import is_senescent

_ROWS = 15


def bar(probability: float, width: int = 20) -> str:
    """Return a probability as a bar of ``width`` characters."""
    filled = round(probability * width)
    return "█" * filled + "░" * (width - filled)


class DemoCounts(TypedDict):
    """Counts, accuracy and latency of a demo; the keys of its summary."""

    sent: int
    classified: int
    lost: int
    dropped: int
    gaps: int
    rejected: int
    accuracy: float | None
    latency_ms: dict[str, float] | None
    compute_ms: dict[str, float] | None
    deadline_ms: float | None
    deadline_misses: int | None  # None: there is no deadline


class DemoScore:
    """Results compared with the truth of the simulated FOVs.

    Frames carry no truth: it is computed here from the seed.

    Parameters
    ----------
    seed : int
        Seed of the synthetic FOVs.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._took_ms: dict[int, tuple[float, float]] = {}  # in total and to compute, by frame
        self._missed = 0
        self.right = 0

    @property
    def classified(self) -> int:
        """Number of frames with a result."""
        return len(self._took_ms)

    def truth(self, result: Result) -> str:
        """Return the correct label of the result's frame."""
        assert result.source.frame is not None
        return "senescent" if is_senescent(self._seed, result.source.frame) else "control"

    def add(self, result: Result) -> None:
        """Count a result; a second result of a frame is ignored."""
        assert result.source.frame is not None
        if result.source.frame not in self._took_ms:
            self._took_ms[result.source.frame] = result.timing_ms.total, result.timing_ms.compute
            self._missed += result.deadline_met is False
            self.right += result.label == self.truth(result)

    def summary(self, sent: int, stream: StreamStatus) -> DemoCounts:
        """Return counts, accuracy and latency."""
        receiver = stream.receiver

        def percentiles(values: list[float]) -> dict[str, float] | None:
            if not values:
                return None
            p50, p99 = np.percentile(values, [50, 99])
            return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}

        return {
            "sent": sent,
            "classified": self.classified,
            "lost": sent - self.classified,
            "dropped": stream.live.dropped,
            "gaps": sum(series.missing for series in receiver.series) if receiver is not None else 0,
            "rejected": sum(receiver.rejected.values()) if receiver is not None else 0,
            "accuracy": round(self.right / self.classified, 4) if self.classified else None,
            "latency_ms": percentiles([total_ms for total_ms, _ in self._took_ms.values()]),
            "compute_ms": percentiles([compute_ms for _, compute_ms in self._took_ms.values()]),
            "deadline_ms": stream.live.deadline_ms,
            "deadline_misses": None if stream.live.deadline_ms is None else self._missed,
        }

    def print_summary(self, console: Console, summary: Mapping[str, object]) -> None:
        """Print the summary as a table."""
        table = Table(title="Summary", show_header=False)
        rows = dict(summary)
        if rows["deadline_ms"] is None:
            del rows["deadline_ms"], rows["deadline_misses"]
            rows["deadline"] = f"no deadline on {'a CPU' if rows['device'] == 'cpu' else 'this device'}"
        for key, value in rows.items():
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(key.replace("_", " "), shown)
        console.print(table)


class LiveTable(Progress):
    """A table of the latest results that updates itself; plain lines if the output is no terminal.

    Parameters
    ----------
    total : int or None
        Number of frames, for the progress bar.
    """

    def __init__(self, console: Console, score: DemoScore, total: int | None, title: str) -> None:
        self.score = score
        self.total = total
        self._title = title
        self._rows: deque[Result] = deque(maxlen=_ROWS)
        columns = TextColumn("scan"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        super().__init__(*columns, console=console, auto_refresh=False, disable=not console.is_terminal)
        self._task = self.add_task("scan", total=total)

    def add(self, result: Result) -> None:
        """Count a result, and add it as the first row, without redrawing."""
        self.score.add(result)
        self._rows.appendleft(result)
        self.advance(self._task)

    def show(self, result: Result) -> None:
        """Count a result, add it as the first row, and redraw."""
        self.add(result)
        self.refresh()
        if self.disable:
            source = result.source
            self.console.print(
                f"FOV {source.frame}: {result.label} {result.probability:.3f} "
                f"(truth {self.score.truth(result)}), {result.timing_ms.total:.0f} ms",
                highlight=False,
            )

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the table, the progress bar and the score."""
        table = Table(title=self._title, expand=False)
        for heading in ("FOV", "x, y / µm", "label", "probability of senescence", "networks", "truth"):
            table.add_column(heading, justify="right" if heading == "FOV" else "left")
        table.add_column("latency", justify="right")
        for result in self._rows:
            truth = self.score.truth(result)
            position = result.source.position_um
            colour = "magenta" if result.label == "senescent" else "cyan"
            table.add_row(
                str(result.source.frame),
                f"{position.x:7.1f} {position.y:7.1f}" if position else "",
                f"[{colour}]{result.label}[/{colour}]",
                f"[{colour}]{bar(result.probability)}[/{colour}] {result.probability:.3f}",
                f"{result.uncertainty.agreement:.0%} agree",
                f"[green]{truth}[/green]" if truth == result.label else f"[red]{truth}[/red]",
                f"{result.timing_ms.total:.0f} ms",
            )
        score = self.score
        share = f"{score.right / score.classified:.0%}" if score.classified else "-"
        right = f"{score.right} of {score.classified} correct ({share})"
        yield from (table, self.make_tasks_table(self.tasks), right)
