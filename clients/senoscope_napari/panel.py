"""What the dock widget looks like; what it does is told elsewhere."""

from __future__ import annotations

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
from senoscope_napari.events import Link, LinkState
from senoscope_napari.table import ResultTable
from senoscope_napari.words import certainty, flags_in_full, origin, other_flags, warning_of

DEFAULT_URL: Final = "http://127.0.0.1:8750"
ENSEMBLE: Final = "the ensemble"
CAMERA_FOV, CAMERA_MAP, CAMERA_FREE = "the field of view", "the stage map", "nothing"
_DOTS: Final = {
    Link.CONNECTING: "#e0a030",
    Link.CONNECTED: "#35b779",
    Link.WAITING: "#e0a030",
    Link.REFUSED: "#e05050",
}


class Panel(QWidget):
    """All that is seen of the widget.

    Parameters
    ----------
    on_chosen : callable
        Told the line of the table that the user chose.
    """

    def __init__(self, on_chosen: Callable[[int], None], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.url = QLineEdit(DEFAULT_URL)
        self.key = QLineEdit()
        self.key.setEchoMode(QLineEdit.EchoMode.Password)
        self.key.setPlaceholderText("only where the service asks for one")
        self.connect_button = QPushButton("Connect")
        self.state = _words()
        self.stream = _words()
        self.warning = _words("background: #8a1f1f; color: white; font-weight: bold; padding: 6px;")
        self.probability = QLabel()
        self.probability.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.label = _words("font-size: 20px; font-weight: bold;")
        self.label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.origin = _words()
        self.certainty = _words()
        self.flags = _words("color: #e0a030;")
        self.note = _words("color: #e0a030;")
        self.follow = QPushButton()
        self.follow.setCheckable(True)
        self.network = QComboBox()
        self.network.addItem(ENSEMBLE)
        self.camera = QComboBox()
        self.camera.addItems([CAMERA_FOV, CAMERA_MAP, CAMERA_FREE])
        self.classify = QPushButton("Classify the selected layers")
        self.posting = _words()
        self.table = ResultTable(on_chosen)
        self._arrange()
        self.follow.toggled.connect(self._name_follow)
        self.follow.setChecked(True)
        self.set_link(None)
        self._show_probability("", "#888888")

    def set_link(self, state: LinkState | None) -> None:
        """Tell how it stands with the service; None: there is no link."""
        words = "Not connected." if state is None else state.words
        colour = "#888888" if state is None else _DOTS[state.link]
        self.state.setText(f'<span style="color: {colour}">●</span> {_plain(words)}')
        self.connect_button.setText("Connect" if state is None else "Disconnect")
        connected = state is not None and state.link is Link.CONNECTED
        self.classify.setEnabled(connected)
        if not connected:
            self.stream.clear()
        for field in (self.url, self.key):
            field.setEnabled(state is None)

    def set_networks(self, networks: tuple[str, ...]) -> None:
        """Offer the networks of an ensemble; the choice stays where it can."""
        chosen = self.network.currentText()
        self.network.blockSignals(True)
        self.network.clear()
        self.network.addItems([ENSEMBLE, *networks])
        self.network.setCurrentIndex(max(0, self.network.findText(chosen)))
        self.network.blockSignals(False)

    @property
    def chosen_network(self) -> str | None:
        """None: the ensemble."""
        return self.network.currentText() if self.network.currentIndex() > 0 else None

    def show_result(self, result: Result, positive: str) -> None:
        """What the ensemble, which looks for the class ``positive``, says of what is shown."""
        # The two ends of viridis, which the stage map is drawn in.
        colour = "#fde725" if result.label == positive else "#8f7ee8"
        self._show_probability(f"{result.probability:.2f}", colour)
        self.label.setText(result.label)
        self.origin.setText(origin(result))
        self.certainty.setText(certainty(result))
        for field, words in (
            (self.warning, warning_of(result)),
            (self.flags, other_flags(result.flags)),
        ):
            field.setText(words)
            field.setToolTip(flags_in_full(result.flags))
            field.setVisible(bool(words))

    def set_note(self, words: str) -> None:
        """A word on the picture that is shown; empty: none."""
        self.note.setText(words)
        self.note.setVisible(bool(words))

    def _show_probability(self, text: str, colour: str) -> None:
        self.probability.setText(text)
        self.probability.setStyleSheet(f"font-size: 64px; font-weight: bold; color: {colour};")

    def _name_follow(self, following: bool) -> None:
        self.follow.setText("Pause (following the scan)" if following else "Follow the scan (paused)")

    def _arrange(self) -> None:
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
            *(self.connect_button, self.state, self.stream, _line(), self.warning, self.probability),
            *(self.label, self.origin, self.certainty, self.flags, self.note, self.follow),
        ):
            column.addWidget(part)
        column.addLayout(choices)
        column.addWidget(_line())
        for part in (self.classify, self.posting):
            column.addWidget(part)
        column.addWidget(self.table, 1)
        for hidden in (self.warning, self.flags, self.note):
            hidden.hide()
        for centred in (self.warning, self.origin, self.certainty, self.flags):
            centred.setAlignment(Qt.AlignmentFlag.AlignCenter)


def _words(style: str = "") -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setStyleSheet(style)
    return label


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    return line


def _plain(text: str) -> str:
    """Text that Qt shows as it is; what a service says has no business with markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
