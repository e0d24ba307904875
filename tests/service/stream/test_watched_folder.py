"""A watched folder: each file is classified once, when it is complete, over restarts too."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from senoscope.runlog import keeper
from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.retention import delete_old_results
from senoscope.runlog.session_lock import SessionLock
from senoscope.runlog.store import RunLog
from senoscope.settings import Settings
from senoscope.stream import watched_folder
from senoscope.stream.folder_files import FileState, in_natural_order, is_being_written, list_files
from support import miniature as mini
from support.image_bytes import npy, tiff
from support.raw_microscope import Microscope
from support.run_logs import PostgresServer, postgres_server, write_locked
from support.servers import Server, ServerThread
from support.slow_engine import SlowEngine

SWAPPED = ("TPEF", "SRS", "Transmission")
Start = Callable[..., ServerThread]


def stack(fovs: int = 2) -> np.ndarray:
    return np.stack([mini.bright(), mini.dark()] * fovs)[:fovs]


def ome(fovs: int, names: tuple[str, ...] = ("SRS", "TPEF", "Transmission")) -> bytes:
    options = {"ome": True, "metadata": {"axes": "TCYX", "Channel": {"Name": list(names)}}}
    return tiff(stack(fovs), **options)


def options(folder: Path, settle_s: float = 0.1) -> list[str]:
    return ["--watch", str(folder), "--watch-interval-s", "0.05", "--watch-settle-s", f"{settle_s}"]


def watched(server: Server) -> dict:
    return server.stream()["watch"]


def wait(server: Server, condition: Callable[[dict], bool], timeout_s: float = 60) -> dict:
    return server.wait(lambda status: condition(status["watch"]), timeout_s)["watch"]


def frames(server: Server) -> dict[str, list[int]]:
    """Return the frames of each file in the run log."""
    found: dict[str, list[int]] = {}
    for result in reversed(server.logged(kind="file")):
        found.setdefault(result["source"]["series_id"], []).append(result["source"]["frame"])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "scans"
    made.mkdir()
    return made


def test_files_are_series_and_classified_once_over_restarts(start: Start, folder: Path) -> None:
    (folder / "scan 10.npy").write_bytes(npy(stack(3)))
    (folder / "scan 2.tif").write_bytes(ome(2))
    (folder / "plate").mkdir()
    (folder / "plate" / "B2.npy").write_bytes(npy(mini.bright()))
    for name in (
        ".hidden.npy",
        "._scan 2.tif",
        "~scan.tif",
        "scan.npy.part",
        "scan.partial.ome.tif",
        "a.png",
    ):
        (folder / name).write_bytes(npy(stack(1)))
    server = start(*options(folder), "--instrument", "nlo-1", "--stream", "")
    status = wait(server, lambda watch: watch["classified"] == 3)
    assert (status["folder"], status["waiting"], status["problem"]) == ("scans", 0, None)
    expected = {"plate/B2.npy": [0], "scan 2.tif": [0, 1], "scan 10.npy": [0, 1, 2]}
    assert frames(server) == expected
    assert list(frames(server)) == list(expected), "in natural order"
    last = server.logged()[0]
    assert (last["label"], last["source"]["instrument"], last["source"]["file"]) == (
        "senescent",
        "nlo-1",
        "scan 10.npy",
    )
    series = {one["series_id"]: one for one in httpx.get(f"{server.url}/v1/series").json()["series"]}
    assert series.keys() == expected.keys()
    for name, numbers in expected.items():
        one = series[name]
        assert (one["state"], one["received"], sum(one["labels"].values())) == (
            "ended",
            len(numbers),
            len(numbers),
        )
    uid = last["source"]["series_uid"]
    assert len(httpx.get(f"{server.url}/v1/series/{uid}/map.json").json()["fovs"]) == 3
    assert (
        'senoscope_watched_files_total{outcome="classified"} 3.0' in httpx.get(f"{server.url}/metrics").text
    )
    server.stop()

    again = start(*options(folder), "--instrument", "nlo-1", "--stream", "")
    (folder / "scan 11.npy").write_bytes(npy(mini.dark()))
    status = wait(again, lambda watch: watch["classified"] == 1)
    assert frames(again) == expected | {"scan 11.npy": [0]}
    assert again.log.read_text().count("file classified") == 1, "the log of the second process"


def test_a_file_that_changes_is_a_new_series(start: Start, folder: Path) -> None:
    server = start(*options(folder))
    (folder / "a.npy").write_bytes(npy(stack(1)))
    wait(server, lambda watch: watch["classified"] == 1)
    (folder / "a.npy").write_bytes(npy(stack(2)))
    status = wait(server, lambda watch: watch["classified"] == 2)
    assert status["changed"] == 1
    assert "changed after it was classified" in status["warnings"][0]["text"]
    assert len({result["source"]["series_uid"] for result in server.logged()}) == 2


def test_a_file_that_is_written_in_pieces_is_waited_for(start: Start, folder: Path) -> None:
    """The file is closed in between: its reader reports that it is cut off."""
    server = start(*options(folder, settle_s=0.2))
    content = ome(4)
    path = folder / "growing.tif"
    path.write_bytes(content[: len(content) // 2])
    time.sleep(1)  # much longer than a complete file waits, much shorter than an incomplete one
    assert watched(server)["classified"] == watched(server)["unreadable"] == 0
    with path.open("ab") as file:
        file.write(content[len(content) // 2 :])
    wait(server, lambda watch: watch["classified"] == 1)
    assert frames(server) == {"growing.tif": [0, 1, 2, 3]}
    assert watched(server)["warnings"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer this differently")
def test_an_open_file_is_waited_for(start: Start, folder: Path) -> None:
    server = start(*options(folder))
    with (folder / "open.npy").open("wb") as file:
        file.write(npy(mini.bright()))
        file.flush()
        assert is_being_written(folder / "open.npy")
        time.sleep(1)
        assert (watched(server)["waiting"], watched(server)["classified"]) == (1, 0)
    assert not is_being_written(folder / "open.npy")
    wait(server, lambda watch: watch["classified"] == 1)


def test_a_scan_that_was_cut_off_is_taken_after_a_longer_time(start: Start, folder: Path) -> None:
    import tifffile

    server = start(*options(folder))
    # A scan of two fields of view, of which the pages of the first exist.
    names = {"axes": "TCYX", "Channel": {"Name": ["SRS", "TPEF", "Transmission"]}}
    whole = folder / ".whole.tif"
    whole.write_bytes(tiff(stack(2), ome=True, metadata=names))
    with tifffile.TiffFile(whole) as file:
        description = file.pages[0].description
    pages = stack(2).reshape(-1, 250, 300)[:4]
    (folder / "cut.ome.tif").write_bytes(tiff(pages, description=description, metadata=None))
    status = wait(server, lambda watch: watch["classified"] == 1)
    assert frames(server) == {"cut.ome.tif": [0]}
    assert "2 fields of view were planned, 1 are complete" in status["warnings"][0]["text"]
    assert "2 fields of view were planned, 1 are complete" in server.log.read_text()
    (series,) = httpx.get(f"{server.url}/v1/series").json()["series"]
    assert (series["state"], series["end_reason"]) == ("ended", "incomplete")


def test_unreadable_files_are_reported_and_left(start: Start, folder: Path) -> None:
    (folder / "damaged.tif").write_bytes(b"II*\0" + b"\xff" * 1000)
    (folder / "empty.npy").touch()
    (folder / "two channels.npy").write_bytes(npy(mini.bright(channels=2)))
    (folder / "small.npy").write_bytes(npy(mini.bright(height=100)))
    (folder / "four.npy").write_bytes(npy(mini.bright(channels=4)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    server = start(*options(folder, settle_s=0.05))
    status = wait(server, lambda watch: watch["unreadable"] == 5)
    reasons = {one["file"]: one["text"] for one in status["failed"]}
    assert reasons.keys() == before.keys()
    assert "the ensemble takes 3" in reasons["two channels.npy"]
    assert "250x300" in reasons["small.npy"]
    assert "empty" in reasons["empty.npy"]
    assert "Pass --watch-axes PCYX if" in reasons["four.npy"], "not axes=, as in a request"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    time.sleep(0.5)
    log = server.log.read_text()
    assert log.count("watched file not classified") == 5, "each is reported once"
    assert str(folder) not in json.dumps(status), "clients do not learn paths of the service's machine"
    (folder / "damaged.tif").write_bytes(ome(1))
    (folder / "empty.npy").unlink()
    status = wait(server, lambda watch: watch["classified"] == 1)
    assert {one["file"] for one in status["failed"]} == {"four.npy", "small.npy", "two channels.npy"}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_what_cannot_be_opened_is_reported_and_keeps_nothing_waiting(start: Start, folder: Path) -> None:
    """Opening a FIFO waits for its writer, and a name need not be text."""
    os.mkfifo(folder / "a fifo.tif")
    (folder / "loop.tif").symlink_to("loop.tif")
    (folder / "broken.npy").symlink_to("nothing.npy")
    expected = {"a fifo.tif", "loop.tif", "broken.npy"}
    if sys.platform == "linux":
        (Path(os.fsdecode(os.fsencode(folder) + b"/pr\xe4p.npy"))).write_bytes(npy(stack(1)))
        expected |= {r"pr\xe4p.npy"}
    (folder / "z.npy").write_bytes(npy(stack(1)))
    server = start(*options(folder))
    status = wait(server, lambda watch: watch["classified"] == 1 and watch["unreadable"] == len(expected))
    reasons = {one["file"]: one["text"] for one in status["failed"]}
    assert reasons.keys() == expected
    assert "not a regular file" in reasons["a fifo.tif"]
    assert "cannot be reached" in reasons["loop.tif"]
    assert "rename it" in reasons.get(r"pr\xe4p.npy", "rename it")
    assert status["waiting"] == 0
    (folder / "a fifo.tif").unlink()
    (folder / "a fifo.tif").write_bytes(ome(1))
    wait(server, lambda watch: watch["classified"] == 2)
    assert server.log.read_text().count("watched file not classified") == len(expected), "each once"


def test_a_folder_that_cannot_be_read_is_reported_once(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "closed").mkdir()
    (folder / "a.npy").write_bytes(npy(stack(1)))
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if path == str(folder / "closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    server = start(*options(folder))
    status = wait(server, lambda watch: watch["classified"] == 1 and watch["unreadable"] == 1)
    assert status["failed"] == [{"file": "closed", "text": "the folder cannot be read: Permission denied"}]
    (folder / "b.npy").write_bytes(npy(stack(1)))
    wait(server, lambda watch: watch["classified"] == 2)
    assert server.log.read_text().count("folder cannot be read") == 1
    monkeypatch.undo()
    (folder / "closed" / "c.npy").write_bytes(npy(stack(1)))
    assert wait(server, lambda watch: watch["classified"] == 3)["failed"] == []


def test_the_status_of_many_files_can_be_read_while_they_are_taken(start: Start, folder: Path) -> None:
    def let_others_run(*_: object) -> None:
        time.sleep(1e-6)

    for n in range(2000):
        (folder / f"{n}.npy").write_bytes(b"no array")
    threshold = gc.get_threshold()
    gc.callbacks.append(let_others_run)  # as finalizers do
    gc.set_threshold(200)
    try:
        server = start(*options(folder, settle_s=0.01))
        status = wait(server, lambda watch: watch["unreadable"] == 2000)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(let_others_run)
    assert (status["waiting"], len(status["failed"])) == (0, 20)


def test_a_fault_of_the_reader_does_not_stop_other_files(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_fovs = watched_folder.open_fovs

    def fail(path: Path, *rest: Any, **options: Any) -> Any:
        if path.name == "a.npy":
            raise RuntimeError(f"{path} is not expected")
        return open_fovs(path, *rest, **options)

    monkeypatch.setattr(watched_folder, "open_fovs", fail)
    (folder / "a.npy").write_bytes(npy(stack(1)))
    (folder / "b.npy").write_bytes(npy(stack(1)))
    server = start(*options(folder))
    status = wait(server, lambda watch: watch["classified"] == 1)
    text = "reading it failed (RuntimeError); see the service's log"
    assert status["failed"] == [{"file": "a.npy", "text": text}]
    assert "is not expected" in server.log.read_text()


def test_one_field_of_view_that_cannot_be_used(start: Start, folder: Path) -> None:
    """What comes before it was queued together with it, so nothing is classified."""
    pixels = stack(3).astype(np.float32)
    pixels[2, 0, 0, 0] = np.nan
    (folder / "nan.npy").write_bytes(npy(pixels))
    server = start(*options(folder))
    status = wait(server, lambda watch: watch["unreadable"] == 1)
    assert "NaN" in status["failed"][0]["text"]
    assert frames(server) == {}


def test_axes_and_channels_from_the_settings(start: Start, folder: Path) -> None:
    swapped = mini.dark()
    swapped[1] = 900  # SRS, which decides
    (folder / "pages.tif").write_bytes(tiff(np.concatenate([swapped, swapped])))
    channels = ("--watch-axes", "PCYX", "--watch-channels", ",".join(SWAPPED))
    server = start(*options(folder), *channels)
    wait(server, lambda watch: watch["classified"] == 1)
    assert [result["label"] for result in server.logged()] == ["senescent", "senescent"]


def test_the_folder_disappears_and_returns(start: Start, folder: Path, tmp_path: Path) -> None:
    server = start(*options(folder))
    (folder / "a.npy").write_bytes(npy(stack(1)))
    wait(server, lambda watch: watch["classified"] == 1)
    folder.rename(tmp_path / "elsewhere")
    wait(server, lambda watch: watch["problem"] is not None)
    ready = httpx.get(f"{server.url}/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "the watched folder scans cannot be read" in ready.json()["problems"][0]
    (tmp_path / "elsewhere").rename(folder)
    (folder / "b.npy").write_bytes(npy(stack(1)))
    wait(server, lambda watch: watch["classified"] == 2 and watch["problem"] is None)
    assert frames(server) == {"a.npy": [0], "b.npy": [0]}


def test_live_frames_come_first_and_a_full_lane_is_waited_for(start: Start, folder: Path) -> None:
    server = start(*options(folder), "--batch-queue", "1", "--batch-size", "1", "--deadline-ms", "24")
    engine = SlowEngine(server, seconds=0.01)
    (folder / "long.npy").write_bytes(npy(stack(70)))
    scope = Microscope(server.frames)
    try:
        with engine.held():
            server.wait(lambda status: status["batch"]["waiting"] > 1)
            scope.send(scope.frame(0))
            server.wait(lambda status: status["live"]["waiting"] == 1)
            busy = httpx.post(f"{server.url}/v1/classify", content=npy(mini.dark()))
            assert busy.status_code == 503
        server.wait(lambda status: status["live"]["classified"] == 1)
        wait(server, lambda watch: watch["classified"] == 1)
    finally:
        scope.close()
    assert frames(server) == {"long.npy": list(range(70))}
    kinds = [result["source"]["kind"] for result in reversed(server.logged())]
    assert kinds.index("stream") < 16, "before the end of the first part of the file"
    status = server.stream()
    assert status["live"]["dropped"] == 0
    assert status["live"]["late"] <= 1, "files have no deadline"


def test_an_ensemble_that_takes_over_within_a_file(start: Start, folder: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    mini.build(models / "straight", name="straight")
    mini.build(models / "swapped", name="swapped", channels=SWAPPED)
    server = start(*options(folder), "--models-dir", str(models), "--batch-size", "1", model=Path("straight"))
    engine = SlowEngine(server, seconds=0.02)
    (folder / "long.tif").write_bytes(ome(100))
    server.wait(lambda status: status["batch"]["classified"] > 3)
    answer = httpx.post(f"{server.url}/v1/model", json={"name": "swapped"}, timeout=60)
    assert answer.status_code == 200
    engine.seconds = 0
    wait(server, lambda watch: watch["classified"] == 1)
    results = server.logged()
    assert frames(server) == {"long.tif": list(range(100))}
    assert Counter(result["model"]["name"] for result in results).keys() == {"straight", "swapped"}
    labels = [result["label"] for result in sorted(results, key=lambda one: one["source"]["frame"])]
    assert labels == ["senescent", "control"] * 50


def test_a_problem_that_has_passed_is_not_reported_until_all_files_are_classified(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for name in ("first", "second"):
        mini.build(models / name, name=name)
    for name in ("1.npy", "2.npy"):
        (folder / name).write_bytes(npy(stack(200)))
    server = start(*options(folder), "--models-dir", str(models), "--batch-size", "1", model=Path("first"))
    SlowEngine(server, seconds=0.01)
    server.wait(lambda status: status["batch"]["classified"] > 3)
    answer = httpx.post(f"{server.url}/v1/model", json={"name": "second"}, timeout=60)
    assert answer.status_code == 200
    assert "another ensemble" in wait(server, lambda watch: watch["problem"] is not None)["problem"]
    SlowEngine(server, seconds=0.02)
    assert wait(server, lambda watch: watch["reading"] == "2.npy")["problem"] is None
    assert "works again" in server.log.read_text()
    wait(server, lambda watch: watch["classified"] == 2)


def test_results_that_the_run_log_lost_are_computed_again(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_MAX_BACKLOG", 4)
    server = start(*options(folder))
    (folder / "a.npy").write_bytes(npy(stack(1)))
    wait(server, lambda watch: watch["classified"] == 1)
    with write_locked(server.log.with_suffix(".sqlite3")):
        (folder / "b.npy").write_bytes(npy(stack(20)))
        server.wait(lambda status: status["run_log"]["lost"] == 12)
    wait(server, lambda watch: watch["classified"] == 2)
    assert {name: sorted(numbers) for name, numbers in frames(server).items()} == {
        "a.npy": [0],
        "b.npy": list(range(20)),
    }


def test_a_file_that_disappears_while_it_is_read_is_reported(start: Start, folder: Path) -> None:
    server = start(*options(folder), "--batch-size", "1")
    engine = SlowEngine(server, seconds=0.01)
    (folder / "long.npy").write_bytes(npy(stack(64)))
    server.wait(lambda status: status["batch"]["classified"] > 2)
    with engine.held():
        (folder / "long.npy").unlink()
    status = wait(server, lambda watch: watch["warnings"] != [])
    assert "of 64 fields of view had results" in status["warnings"][0]["text"]
    wait(server, lambda watch: watch["waiting"] == 0 and watch["reading"] is None)
    series = httpx.get(f"{server.url}/v1/series").json()["series"]
    assert [one["state"] for one in series] == ["interrupted"]


def test_a_service_that_stops_begins_no_more_of_a_file(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_folder, "_WAKE_INTERVAL_S", 60)  # each part is ready before
    server = start(*options(folder), "--batch-size", "1")
    (folder / "long.npy").write_bytes(npy(stack(300)))
    server.wait(lambda status: status["batch"]["classified"] > 2)
    server.stop()
    again = start(*options(folder), "--batch-size", "1")
    assert len(again.logged(kind="file")) < 300
    wait(again, lambda watch: watch["classified"] == 1)
    assert sorted(frames(again)["long.npy"]) == list(range(300))


def test_a_failure_of_the_engine_is_tried_again(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_folder, "_RETRY_S", 0.2)
    server = start(*options(folder))
    ensemble = server.service.active.ensemble
    predict = ensemble.predict

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    ensemble.predict = fail  # type: ignore[assignment]
    (folder / "a.npy").write_bytes(npy(stack(2)))
    status = wait(server, lambda watch: watch["unreadable"] == 1)
    assert "the engine failed" in status["failed"][0]["text"]
    ensemble.predict = predict
    status = wait(server, lambda watch: watch["classified"] == 1)
    assert (status["failed"], status["unreadable"]) == ([], 1)
    assert frames(server) == {"a.npy": [0, 1]}


def test_deleted_results_are_not_made_again(start: Start, folder: Path) -> None:
    (folder / "a.npy").write_bytes(npy(stack(3)))
    server = start(*options(folder))
    wait(server, lambda watch: watch["classified"] == 1)
    server.stop()
    log = RunLog(server.settings.database_url)
    log.prepare()
    assert delete_old_results(log.database, 1e-9, None, lambda: False) == 3
    assert log.series(10) == []
    log.close()
    server = start(*options(folder))
    (folder / "b.npy").write_bytes(npy(stack(1)))
    wait(server, lambda watch: watch["classified"] == 1 and watch["waiting"] == 0)
    assert frames(server) == {"b.npy": [0]}


def test_two_services_of_one_run_log(start: Start, folder: Path, tmp_path: Path) -> None:
    first = start(*options(folder))
    (folder / "a.npy").write_bytes(npy(stack(1)))
    wait(first, lambda watch: watch["classified"] == 1)
    shared = ("--database-url", first.settings.database_url)
    second = start(*options(folder), *shared, log=tmp_path / "second.txt")
    (folder / "b.npy").write_bytes(npy(stack(1)))
    wait(first, lambda watch: watch["classified"] == 2)
    (folder / "c.npy").write_bytes(npy(stack(1)))
    wait(first, lambda watch: watch["classified"] == 3)
    assert watched(second)["classified"] == 0
    assert "--instrument" in second.log.read_text()
    first.stop()
    (folder / "d.npy").write_bytes(npy(stack(1)))
    wait(second, lambda watch: watch["classified"] == 1)
    assert frames(second) == {name: [0] for name in ("a.npy", "b.npy", "c.npy", "d.npy")}


@pytest.mark.system("postgres")
def test_a_run_log_in_postgresql(start: Start, folder: Path, tmp_path: Path) -> None:
    with postgres_server() as postgres:
        assert isinstance(postgres, PostgresServer)
        database = ("--database-url", postgres.new_database())
        (folder / "a.npy").write_bytes(npy(stack(3)))
        server = start(*options(folder), *database)
        wait(server, lambda watch: watch["classified"] == 1)
        other = SessionLock(RunLog(database[1]).database, "watch scans")
        assert not other.acquire(), "the service holds it"
        server.stop()
        assert other.acquire()
        assert other.acquire(), "again"
        other.release()
        (folder / "b.npy").write_bytes(npy(stack(1)))
        again = start(*options(folder), *database, log=tmp_path / "again.txt")
        wait(again, lambda watch: watch["classified"] == 1)
        assert frames(again) == {"a.npy": [0, 1, 2], "b.npy": [0]}
        again.stop()


def test_settings_that_do_not_go_together(folder: Path) -> None:
    log = f"sqlite:///{folder.parent / 'log.sqlite3'}"
    with pytest.raises(ValueError, match="--watch needs a run log"):
        Settings(watch=folder, database_url="none")
    with pytest.raises(ValueError, match="--archive must not be in the folder"):
        Settings(watch=folder, archive=folder / "archive", database_url=log)
    assert Settings(watch=folder / "in", archive=folder, database_url=log).watch == folder / "in"


def test_listing(folder: Path) -> None:
    for name in ("b 10.tif", "b 2.tif", "A/x.NPY", "A/.y.tif", ".git/z.tif", "n.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"12")
    found = in_natural_order(list_files(folder))
    assert [file.name for file in found] == ["A/x.NPY", "b 2.tif", "b 10.tif"]
    assert all(file.size == 2 for file in found)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        list(list_files(folder))
    assert FileState("a", 1, 2) != FileState("a", 1, 3)


def test_a_frame_of_a_file_is_logged_once(tmp_path: Path, miniature: Path) -> None:
    from senoscope.engine.manifest import read_manifest
    from support.run_logs import entry

    manifest = read_manifest(miniature)[0]
    log = RunLog(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    log.prepare()
    for kind, count in (("file", 1), ("stream", 2)):
        for _ in range(2):
            log.append([entry(manifest, 5, kind=kind)])
        found = [one for one in log.iterate(ResultFilter()) if one.source.kind == kind]
        assert len(found) == count, kind
    log.close()
