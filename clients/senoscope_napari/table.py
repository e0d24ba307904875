"""The table of the results of the posted stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from senoscope_client.models.result import Result
from senoscope_client.tables import flag_words

_HEADINGS = ("FOV", "label", "probability", "entropy", "flags")


class ResultTable(QTableWidget):
    """A table whose selected row is the field of view that is shown.

    Parameters
    ----------
    on_chosen : callable
        Called with the number of the row that the user selects.
    """

    def __init__(self, on_chosen: Callable[[int], None], parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADINGS), parent)
        self.setHorizontalHeaderLabels(_HEADINGS)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        numbers, headings = self.verticalHeader(), self.horizontalHeader()
        assert numbers is not None
        assert headings is not None
        numbers.hide()
        headings.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        headings.setStretchLastSection(True)
        self.itemSelectionChanged.connect(self._on_selection)
        self._on_chosen = on_chosen

    def show_results(self, results: Sequence[Result]) -> None:
        """Replace the rows by results, and select the first one."""
        self.blockSignals(True)
        self.setRowCount(len(results))
        for row, result in enumerate(results):
            cells = (
                str(row if result.source.frame is None else result.source.frame),
                result.label,
                f"{result.probability:.3f}",
                f"{result.uncertainty.entropy:.3f}",
                flag_words(result.flags),
            )
            for column, text in enumerate(cells):
                self.setItem(row, column, QTableWidgetItem(text))
        self.blockSignals(False)
        self.clearSelection()
        if results:
            self.selectRow(0)

    def _on_selection(self) -> None:
        rows = {index.row() for index in self.selectedIndexes()}
        if rows:
            self._on_chosen(rows.pop())
