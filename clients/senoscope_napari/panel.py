"""The controls of the dock widget and their layout; `widget` implements their behaviour."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QFrame,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from senoscope_client.models.result import Result
from senoscope_napari.events import LinkState, LinkStatus
from senoscope_napari.table import ResultTable
from senoscope_napari.texts import certainty_text, origin_text, other_flags_text, science_warning

DEFAULT_URL: Final = "http://127.0.0.1:8750"
ENSEMBLE: Final = "the ensemble"
CAMERA_FOV, CAMERA_MAP, CAMERA_FREE = "the field of view", "the stage map", "nothing"
_STATUS_COLOURS: Final = {
    LinkStatus.CONNECTING: "#e0a030",
    LinkStatus.CONNECTED: "#35b779",
    LinkStatus.WAITING: "#e0a030",
    LinkStatus.REFUSED: "#e05050",
}


class Panel(QWidget):
    """The controls of the widget.

    Parameters
    ----------
    on_chosen : callable
        Called with the number of the table row that the user selects.
    """

    def __init__(self, on_chosen: Callable[[int], None], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.url = QLineEdit(DEFAULT_URL)
        self.key = QLineEdit()
        self.key.setEchoMode(QLineEdit.EchoMode.Password)
        self.key.setPlaceholderText("only if the service requires one")
        self.connect_button = QPushButton("Connect")
        self.state = _text_label()
        self.stream = _text_label()
        self.warning = _text_label("background: #8a1f1f; color: white; font-weight: bold; padding: 6px;")
        self.probability = QLabel()
        self.probability.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.label = _text_label("font-size: 20px; font-weight: bold;")
        self.label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.origin = _text_label()
        self.certainty = _text_label()
        self.flags = _text_label("color: #e0a030;")
        self.note = _text_label("color: #e0a030;")
        self.follow = QPushButton()
        self.follow.setCheckable(True)
        self.network = QComboBox()
        self.network.addItem(ENSEMBLE)
        self.camera = QComboBox()
        self.camera.addItems([CAMERA_FOV, CAMERA_MAP, CAMERA_FREE])
        self.classify = QPushButton("Classify the selected layers")
        self.posting = _text_label()
        self.table = ResultTable(on_chosen)
        self._create_layout()
        self.follow.toggled.connect(self._update_follow_text)
        self.follow.setChecked(True)
        self.set_link(None)
        self._show_probability("", "#888888")

    def set_link(self, state: LinkState | None) -> None:
        """Show the state of the connection; None: there is no link."""
        text = "Not connected." if state is None else state.text
        colour = "#888888" if state is None else _STATUS_COLOURS[state.status]
        # Text of a service is escaped, so that Qt does not interpret it as markup.
        self.state.setText(f'<span style="color: {colour}">●</span> {html.escape(text, quote=False)}')
        self.connect_button.setText("Connect" if state is None else "Disconnect")
        connected = state is not None and state.status is LinkStatus.CONNECTED
        self.classify.setEnabled(connected)
        if not connected:
            self.stream.clear()
        for field in (self.url, self.key):
            field.setEnabled(state is None)

    def set_networks(self, networks: tuple[str, ...]) -> None:
        """Offer the networks of an ensemble; the selection is kept if possible."""
        chosen = self.network.currentText()
        self.network.blockSignals(True)
        self.network.clear()
        self.network.addItems([ENSEMBLE, *networks])
        self.network.setCurrentIndex(max(0, self.network.findText(chosen)))
        self.network.blockSignals(False)

    @property
    def chosen_network(self) -> str | None:
        """The selected network; None: the ensemble."""
        return self.network.currentText() if self.network.currentIndex() > 0 else None

    def show_result(self, result: Result, positive: str) -> None:
        """Show a result; ``positive`` is the class that probabilities are of."""
        # The two ends of viridis, the colormap of the stage map.
        colour = "#fde725" if result.label == positive else "#8f7ee8"
        self._show_probability(f"{result.probability:.2f}", colour)
        self.label.setText(result.label)
        self.origin.setText(origin_text(result))
        self.certainty.setText(certainty_text(result))
        for field, text in (
            (self.warning, science_warning(result)),
            (self.flags, other_flags_text(result.flags)),
        ):
            field.setText(text)
            field.setToolTip("\n".join(flag.message for flag in result.flags))
            field.setVisible(bool(text))

    def set_note(self, text: str) -> None:
        """Show a note about the field of view; empty: hide it."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def _show_probability(self, text: str, colour: str) -> None:
        self.probability.setText(text)
        self.probability.setStyleSheet(f"font-size: 64px; font-weight: bold; color: {colour};")

    def _update_follow_text(self, following: bool) -> None:
        self.follow.setText("Pause (following the scan)" if following else "Follow the scan (paused)")

    def _create_layout(self) -> None:
        service = QFormLayout()
        service.addRow("Service", self.url)
        service.addRow("API key", self.key)
        choices = QFormLayout()
        choices.addRow("Grad-CAM of", self.network)
        choices.addRow("Keep in view", self.camera)
        self.setMinimumWidth(300)
        column = QVBoxLayout(self)
        column.addLayout(service)
        for part in (
            *(self.connect_button, self.state, self.stream, _separator(), self.warning, self.probability),
            *(self.label, self.origin, self.certainty, self.flags, self.note, self.follow),
        ):
            column.addWidget(part)
        column.addLayout(choices)
        column.addWidget(_separator())
        for part in (self.classify, self.posting):
            column.addWidget(part)
        column.addWidget(self.table, 1)
        for hidden in (self.warning, self.flags, self.note):
            hidden.hide()
        for centred in (self.warning, self.origin, self.certainty, self.flags):
            centred.setAlignment(Qt.AlignmentFlag.AlignCenter)


def _text_label(style: str = "") -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setStyleSheet(style)
    return label


def _separator() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    return line
