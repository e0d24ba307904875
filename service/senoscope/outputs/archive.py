"""The archive of pixels: one OME-TIFF per series, with Grad-CAM as an additional channel."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
import structlog
import tifffile

from senoscope.logs import about
from senoscope.results.delivery import DeliveryTimes, ResultSink
from senoscope.results.record import Record
from senoscope.watched_thread import WatchedThread
from senoscope_client.models.status import ArchiveStatus

_log = structlog.get_logger(__name__)
# 20 s of a scan at the highest rate that a CPU classifies; each FOV is half a megabyte.
_DEPTH: Final = 64
# The file of a series that pauses for so long is finished; if the series continues, another file begins.
_PAUSE_S: Final = 300.0
_WAKE_INTERVAL_S: Final = 5.0
_MAX_OPEN: Final = 4
GRADCAM: Final = "Grad-CAM"
# Characters that XML 1.0 does not allow (section 2.2).
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class _File:
    path: Path
    writer: tifffile.TiffWriter
    written: int
    last_s: float

    @property
    def partial(self) -> Path:
        return _partial_of(self.path)


def _partial_of(path: Path) -> Path:
    """Return the name of a file until it is finished."""
    return path.with_name(path.name.replace(".ome.tif", ".partial.ome.tif"))


class Archive(ResultSink):
    """The sink that writes streamed FOVs to disk.

    A file is named ``<series_id>_<series_uid>.partial.ome.tif`` while it grows: its pages can be read, and
    its OME-XML is written when the file is finished and renamed. That is when its series pauses, when too
    many others are written, or when the service stops.

    Parameters
    ----------
    directory : Path
        Created if it does not exist.

    Raises
    ------
    OSError
        If the directory cannot be created or written to.
    """

    name = "archive"
    thread: WatchedThread

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".senoscope-can-write"
        probe.touch()
        probe.unlink()
        self._directory = directory
        self._queue: queue.Queue[Record | None] = queue.Queue(_DEPTH)
        self._files: dict[UUID, _File] = {}
        self._fault: str | None = None
        self.written = 0
        self.lost = 0
        self.thread = WatchedThread("archive", self._run, restarts=True)

    @property
    def problem(self) -> str | None:
        """Why pixels are not written now, or None."""
        return super().problem or self._fault

    def status(self) -> ArchiveStatus:
        """Return state and counters."""
        return ArchiveStatus(written=self.written, lost=self.lost, problem=self.problem)

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        """Queue a FOV of the stream; if the disk is too slow, it is not archived, and counted."""
        if record.result.source.series_uid is None:
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._count_lost("the disk is too slow", record)

    def close(self) -> None:
        """Write the FOVs that wait, and finish every file."""
        self.thread.request_stop()
        with contextlib.suppress(queue.Full):  # else the thread stops after those that wait
            self._queue.put(None, timeout=_WAKE_INTERVAL_S)
        self.thread.stop(60.0)

    def _run(self, stop: threading.Event) -> None:
        try:
            while True:
                try:
                    record = self._queue.get(timeout=_WAKE_INTERVAL_S)
                except queue.Empty:
                    self._finish_paused()
                    if stop.is_set():
                        return
                    continue
                if record is None:
                    return
                self._write(record)
        finally:
            for uid in list(self._files):
                self._finish(uid)

    def _write(self, record: Record) -> None:
        uid = record.result.source.series_uid
        assert uid is not None
        try:
            file = self._files.get(uid) or self._open(uid, record)
            write_fov(file.writer, record)
        except (OSError, ValueError) as error:
            self._count_lost(f"{type(error).__name__}: {error}", record)
            if uid in self._files:
                self._finish(uid)
            return
        file.written += 1
        file.last_s = time.monotonic()
        self.written += 1
        if self._fault is not None:
            _log.info("pixels are archived again")
            self._fault = None

    def _open(self, uid: UUID, record: Record) -> _File:
        self._finish_paused()
        if len(self._files) >= _MAX_OPEN:
            self._finish(min(self._files, key=lambda other: self._files[other].last_s))
        # The operator's name of the series, but never a path.
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", record.result.source.series_id or "").strip("-.")[:60]
        stem = "_".join(part for part in (name, str(uid)) if part)
        path, count = self._directory / f"{stem}.ome.tif", 1
        while path.exists() or _partial_of(path).exists():
            count += 1
            path = self._directory / f"{stem}_{count}.ome.tif"
        writer = tifffile.TiffWriter(_partial_of(path), bigtiff=True, ome=True)
        self._files[uid] = _File(path, writer, 0, time.monotonic())
        return self._files[uid]

    def _finish_paused(self) -> None:
        now_s = time.monotonic()
        for uid in [uid for uid, file in self._files.items() if now_s - file.last_s > _PAUSE_S]:
            self._finish(uid)

    def _finish(self, uid: UUID) -> None:
        file = self._files.pop(uid)
        try:
            file.writer.close()
            if file.written:
                file.partial.rename(file.path)
            else:
                file.partial.unlink()
        except (OSError, ValueError) as error:
            self._fault = f"{file.partial.name} could not be finished: {type(error).__name__}"
            _log.exception("an archive file could not be finished", file=str(file.partial))

    def _count_lost(self, reason: str, record: Record) -> None:
        self.lost += 1
        if self._fault is None:
            _log.error("pixels are not archived", reason=reason, **about(record.fov))
        self._fault = f"pixels are not archived: {reason.partition(':')[0]}"


def write_fov(writer: tifffile.TiffWriter, record: Record) -> None:
    """Append a FOV as one OME image [C + 1, H, W]; its map is scaled to the range of the pixel type."""
    pixels, result = record.fov.pixels, record.result
    source = result.source
    stack = np.concatenate([pixels, _as_pixels(record.prediction.map(), pixels.dtype)[None]])
    metadata: dict[str, Any] = {
        "axes": "CYX",
        "Name": f"frame {source.frame}: {result.label} {result.probability:.3f}",
        # Names may contain characters that JSON allows and XML does not.
        "Description": _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", record.json("none").decode()),
        "Channel": {"Name": [*record.channels, GRADCAM]},
    }
    if source.pixel_size_um is not None:
        metadata |= {
            "PhysicalSizeX": source.pixel_size_um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": source.pixel_size_um,
            "PhysicalSizeYUnit": "µm",
        }
    if source.position_um is not None:
        planes = len(stack)
        metadata["Plane"] = {
            f"Position{axis.upper()}": [getattr(source.position_um, axis)] * planes for axis in "xyz"
        } | {f"Position{axis.upper()}Unit": ["µm"] * planes for axis in "xyz"}
    if source.acquired_at is not None:
        metadata["AcquisitionDate"] = source.acquired_at.isoformat()
    writer.write(stack, photometric="minisblack", metadata=metadata)


def _as_pixels(gradcam: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a map in 0..1 in the detector's pixel type: an OME image has one type for all channels."""
    if dtype.kind == "f":
        return gradcam.astype(dtype)
    return np.asarray(np.round(gradcam * np.iinfo(dtype).max).astype(dtype))
