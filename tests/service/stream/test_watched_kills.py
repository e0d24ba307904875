"""A watched folder while the service is killed: every field of view is logged once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.store import RunLog
from support import miniature as mini
from support.image_bytes import npy, tiff
from support.servers import start_server_process

FILES, UNREADABLE, KILLS = 200, 5, 10


class Dropper:
    """Writes files into a folder from a separate thread: whole ones, ones in two halves, unreadable ones.

    Attributes
    ----------
    fovs : dict of str to int
        Fields of view of each readable file.
    """

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self._folder, self._random = folder, random.Random(seed)
        self._pause_s = seconds / FILES
        self.fovs = {f"scan {n}.{'npy' if n % 3 else 'tif'}": 1 + n % 4 for n in range(FILES)}
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for n, (name, fovs) in enumerate(self.fovs.items()):
                if n % (FILES // UNREADABLE) == 0:
                    (self._folder / f"damaged {n}.tif").write_bytes(b"II*\0" + bytes([255]) * 100)
                self._write(self._folder / name, fovs)
                time.sleep(self._random.uniform(0, 2 * self._pause_s))
        except BaseException as error:
            self.failure = error

    def _write(self, path: Path, fovs: int) -> None:
        pixels = np.stack([mini.bright(), mini.dark()] * fovs)[:fovs]
        content = npy(pixels) if path.suffix == ".npy" else tiff(pixels, metadata={"axes": "TCYX"})
        half = len(content) // 2 if self._random.random() < 0.3 else len(content)
        closed = self._random.random() < 0.5
        with path.open("wb") as file:
            file.write(content[:half])
            if half < len(content) and not closed:
                file.flush()
                time.sleep(3 * self._pause_s)
                file.write(content[half:])
        if half < len(content) and closed:
            time.sleep(3 * self._pause_s)
            with path.open("ab") as file:
                file.write(content[half:])


@pytest.mark.full
def test_each_file_is_logged_once_however_often_the_service_is_killed(
    miniature: Path, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    seed = random.SystemRandom().randrange(2**32)
    moments = random.Random(seed)
    options = ("--watch", str(folder), "--watch-interval-s", "0.05", "--watch-settle-s", "0.3")
    began_s = time.monotonic()
    dropper = Dropper(folder, 25, seed)
    within_files = 0
    for n in range(KILLS):
        server = start_server_process(miniature, tmp_path / "log.txt", *options, wait=n % 5 != 4)
        time.sleep(moments.uniform(0, 2))
        if n % 5 != 4:
            within_files += server.stream()["watch"]["reading"] is not None
        server.kill()
    dropper.thread.join()
    assert dropper.failure is None
    server = start_server_process(miniature, tmp_path / "log.txt", *options)
    try:
        # What cannot be read is reported last.
        server.wait(lambda status: status["watch"]["unreadable"] == UNREADABLE, 120)
        server.wait(lambda status: status["watch"]["waiting"] == 0, 120)
        status = server.stream()["watch"]
    finally:
        server.stop()
    assert status["unreadable"] == UNREADABLE, status
    assert len(list(folder.iterdir())) == FILES + UNREADABLE, "nothing is moved or deleted"

    log = RunLog(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    log.prepare()
    logged = Counter((one.source.series_id, one.source.frame) for one in log.iterate(ResultFilter()))
    series = {one.snapshot.series_id: one.snapshot for one in log.series(1000)}
    log.close()
    print(
        f"seed {seed}: {FILES} files, {KILLS} kills ({within_files} seen within a file), "
        f"{time.monotonic() - began_s:.0f} s, {logged.total()} results of {len(logged)} fields of view, "
        f"{logged.total() - len(logged)} logged twice, {status['unreadable']} unreadable"
    )
    expected = {(name, n) for name, fovs in dropper.fovs.items() for n in range(fovs)}
    assert logged.keys() == expected, f"seed {seed}"
    assert set(logged.values()) == {1}, f"seed {seed}"
    assert series.keys() == dropper.fovs.keys()
    states = Counter(one.state for one in series.values())
    assert states == {"ended": FILES}, f"seed {seed}"
