"""Conversion of the paper's pickles, and their download."""

from __future__ import annotations

import hashlib
import pickle
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pooch
import pytest

from senoscope_training.dataset.download import RECORD, download_record, published_md5s
from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.pickles import UnsafePickle
from senoscope_training.dataset.reading import read_data_set
from senoscope_training.dataset.zenodo import import_pickles
from support.labelled_folders import NAMES, SIZE, H, W, config, fov

TRAIN, TEST = np.stack([fov(n) for n in range(6)]), np.stack([fov(n) for n in range(10, 14)])
TRUTH, TEST_TRUTH = [0, 1, 1, 0, 1, 0], [1, 0, 1, 0]


import_trusted = partial(import_pickles, trust=True)


def last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def arrays(**changes) -> dict[str, object]:
    whole = {"train_data": last(TRAIN), "train_label": np.array(TRUTH), "test_data": last(TEST)}
    return {**whole, "test_label": np.array(TEST_TRUTH), **changes}


def dump(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))
    return path


def files_of(root: Path, layout: str) -> list[Path]:
    whole = arrays()
    if layout == "one dictionary":
        return [dump(root / "all.pickle", whole)]
    if layout == "a dictionary per side":
        sides = ("train", "test")
        return [dump(root / f"{s}.pkl", {k: v for k, v in whole.items() if k.startswith(s)}) for s in sides]
    for key, value in whole.items():
        dump(root / f"HepG2_{key.upper()}.pickle", value)
    return [root]


@pytest.mark.parametrize("layout", ["one dictionary", "a dictionary per side", "a folder of bare arrays"])
def test_pickles_become_a_data_set(tmp_path, layout):
    out = tmp_path / "made"
    assert import_trusted(files_of(tmp_path / "in", layout), out) == 10
    settings = config(out)
    inspection = read_data_set(settings, SIZE)
    data_set = inspection.data_set
    assert [entry.split for entry in data_set.entries] == ["test"] * 4 + ["train"] * 6
    np.testing.assert_array_equal(data_set.labels, [*TEST_TRUTH, *TRUTH])
    pixels = inspection.pixels
    np.testing.assert_array_equal(pixels, np.concatenate([TEST, TRAIN]), strict=True)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "made"}


@pytest.mark.parametrize(
    "labels",
    [
        [bool(n) for n in TRUTH],
        np.array(TRUTH, np.float32),
        np.array(TRUTH)[:, None],
        np.eye(2)[TRUTH],
        np.array(["Senescent" if n else "control " for n in TRUTH]),
        [b"senescent" if n else b"control" for n in TRUTH],
        ["01"[n] for n in TRUTH],
    ],
    ids=["bools", "floats", "column", "one-hot", "texts", "bytes", "digits"],
)
def test_labels_of_all_kinds(tmp_path, labels):
    import_trusted([dump(tmp_path / "x.pkl", arrays(train_label=labels))], tmp_path / "made")
    found = read_data_set(config(tmp_path / "made"), SIZE).data_set
    np.testing.assert_array_equal(found.labels, [*TEST_TRUTH, *TRUTH])


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (TRAIN, "uint16"),
        (TRAIN.astype("uint8"), "uint8"),
        (TRAIN.astype(">u2"), "uint16"),
        (last(TRAIN).astype("float64"), "float32"),
        (TRAIN.astype("int32"), "float32"),
        (list(last(TRAIN)), "uint16"),
    ],
    ids=["channels-first", "uint8", "big-endian", "float64", "int32", "list"],
)
def test_pixels_of_all_kinds(tmp_path, data, dtype):
    side = {"train_data": data, "train_label": TRUTH}
    import_trusted([dump(tmp_path / "x.pkl", side)], tmp_path / "made")
    found = read_data_set(config(tmp_path / "made"), SIZE).pixels
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, TRAIN)


def test_one_side_alone_has_no_split(tmp_path):
    one = {key: value for key, value in arrays().items() if key.startswith("train")}
    import_trusted([dump(tmp_path / "x.pkl", one)], tmp_path / "made")
    assert (tmp_path / "made" / "dataset.csv").read_text().startswith("file,label\n")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"x": 1}, "x.pkl contains the keys 'x'; one of train_data"),
        (np.zeros(3), "x.pkl contains a single ndarray without a key"),
        ({"train_data": TRAIN}, "train_label is missing; pass the file"),
        (arrays(train_label=[0, 1]), "6 fields of view, but train_label 2 labels"),
        (arrays(train_label=[0, 1, 2, 0, 1, 0]), "train_label is not a list of labels"),
        (arrays(train_label=np.ones((6, 2))), "train_label is not a list of labels"),
        (
            arrays(train_label=["senescnt"] * 6),
            "train_label contains the label 'senescnt' .did you mean 'senescent'",
        ),
        (arrays(train_label=[[0], [1, 2]]), "train_label is not a list of labels"),
        (arrays(train_data=TRAIN[:, :2]), "channels is missing"),
        (arrays(train_data=np.zeros((6, 3, 32, 3), np.uint8)), "channels is ambiguous"),
        (arrays(train_data=TRAIN[0]), r"train_data is uint16 of shape \(3, 32, 40\)"),
        (arrays(train_data=TRAIN > 3), "train_data is bool"),
        (arrays(train_data="hello"), "train_data is str"),
        (arrays(train_data=[TRAIN[0], TRAIN[0][:, 1:]]), "differ in shape"),
        (arrays(train_data=np.full(TRAIN.shape, np.nan)), "NaN or infinite"),
        (arrays(train_data=TRAIN[:0], train_label=[]), "train_data is empty"),
    ],
)
def test_invalid_arrays_are_refused_and_leave_nothing(tmp_path, value, reason):
    path = dump(tmp_path / "x.pkl", value)
    with pytest.raises(DataSetError, match=reason):
        import_trusted([path], tmp_path / "made")
    assert list(tmp_path.iterdir()) == [path]


def test_an_unsafe_file_among_others_leaves_nothing(tmp_path):
    good, bad = dump(tmp_path / "a.pkl", arrays()), tmp_path / "b.pkl"
    bad.write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    with pytest.raises(UnsafePickle, match=r"b\.pkl refers to os\.system"):
        import_trusted([good, bad], tmp_path / "made")
    assert sorted(tmp_path.iterdir()) == [good, bad]


def test_only_published_files_are_read_without_trust(tmp_path):
    path, out = dump(tmp_path / "x.pkl", arrays()), tmp_path / "made"
    unsafe = tmp_path / "y.pkl"
    unsafe.write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    for sources in ([unsafe], [path, unsafe], [tmp_path]):
        with pytest.raises(DataSetError, match=r"y\.pkl is not a file of Zenodo record .* pass --trust"):
            import_pickles(sources, out, published=lambda: {pooch.file_hash(path, "md5")})
    assert not out.exists()
    assert import_pickles([path], out, published=lambda: {pooch.file_hash(path, "md5")}) == 10


def test_a_published_file_may_contain_only_arrays_too(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    with pytest.raises(UnsafePickle, match=r"refers to os\.system"):
        import_pickles([path], tmp_path / "made", published=lambda: {pooch.file_hash(path, "md5")})


def test_missing_sources(tmp_path):
    with pytest.raises(DataSetError, match="does not exist"):
        import_trusted([tmp_path / "x"], tmp_path / "made")
    with pytest.raises(DataSetError, match="contains no pickle"):
        import_trusted([tmp_path], tmp_path / "made")


def test_the_same_key_twice(tmp_path):
    paths = [dump(tmp_path / f"{n}.pkl", arrays()) for n in "ab"]
    with pytest.raises(DataSetError, match=r"b\.pkl contains train_data, which another"):
        import_trusted(paths, tmp_path / "made")


def test_an_existing_folder_is_kept(tmp_path):
    path = dump(tmp_path / "x.pkl", arrays())
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine").touch()
    with pytest.raises(DataSetError, match="made already exists"):
        import_trusted([path], tmp_path / "made")
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["mine"]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    import senoscope_training.dataset.writing as writing

    path = dump(tmp_path / "x.pkl", arrays())
    written = []

    def interrupted(target, *_, **__):
        if written:
            raise KeyboardInterrupt
        written.append(target)

    monkeypatch.setattr(writing.tifffile, "imwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_trusted([path], tmp_path / "made")
    assert written
    assert list(tmp_path.iterdir()) == [path]


class Zenodo:
    """The record, with one file, behind a transport that may fail."""

    def __init__(self, body: bytes = b"0123456789" * 1000, **changes):
        self.body = body
        self.ranges: list[str | None] = []
        self.file = {
            "key": "data.pickle",
            "size": len(body),
            "checksum": f"md5:{hashlib.md5(body).hexdigest()}",
            "links": {"self": f"https://zenodo.org/api/records/{RECORD}/files/data.pickle/content"},
            **changes,
        }
        self.resumes = True
        self.sends = len(body)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == f"/api/records/{RECORD}":
            return httpx.Response(200, json={"files": [self.file]})
        asked = request.headers.get("range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.resumes else 0
        return httpx.Response(206 if start else 200, content=self.body[start : self.sends])

    def fetch(self, folder: Path) -> list[Path]:
        return download_record(folder, lambda *_: None, httpx.Client(transport=httpx.MockTransport(self)))


def test_a_record_is_downloaded_once(tmp_path):
    zenodo = Zenodo()
    for _ in range(2):
        (path,) = zenodo.fetch(tmp_path / "in")
        assert path.read_bytes() == zenodo.body
    assert zenodo.ranges == [None]
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["data.pickle"]


@pytest.mark.parametrize("resumes", [True, False])
def test_an_incomplete_file_is_resumed(tmp_path, resumes):
    zenodo = Zenodo()
    zenodo.resumes = resumes
    (tmp_path / "data.pickle.part").write_bytes(zenodo.body[:4000])
    (path,) = zenodo.fetch(tmp_path)
    assert path.read_bytes() == zenodo.body
    assert zenodo.ranges == ["bytes=4000-"]


def test_a_file_that_is_interrupted_again_is_kept(tmp_path):
    zenodo = Zenodo()

    def broken(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("content"):
            raise httpx.ReadError("connection lost")
        return zenodo(request)

    (tmp_path / "data.pickle.part").write_bytes(zenodo.body[:4000])
    client = httpx.Client(transport=httpx.MockTransport(broken))
    with pytest.raises(
        DataSetError, match=rf"cannot be reached \(connection lost\).*kept.*zenodo.org/records/{RECORD}"
    ):
        download_record(tmp_path, lambda *_: None, client)
    assert (tmp_path / "data.pickle.part").stat().st_size == 4000


def test_a_damaged_file_is_deleted(tmp_path):
    zenodo = Zenodo(checksum=f"md5:{'0' * 32}")
    with pytest.raises(DataSetError, match=r"data\.pickle was damaged in transfer"):
        zenodo.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_long_is_stopped(tmp_path):
    with pytest.raises(DataSetError, match="longer than the record declares"):
        Zenodo(size=100).fetch(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../evil.pickle"},
        {"key": "/etc/evil"},
        {"key": ".bashrc"},
        {"links": {"self": "https://example.org/x"}},
        {"links": {"self": "http://zenodo.org/x"}},
        {"links": {"self": "file:///etc/passwd"}},
        {"checksum": "crc:0"},
        {"size": "x"},
        {"links": {}},
    ],
)
def test_an_invalid_record_is_refused(tmp_path, changes):
    with pytest.raises(DataSetError, match="is not a Zenodo record"):
        Zenodo(**changes).fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_response(tmp_path, status):
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status)))
    with pytest.raises(DataSetError, match=f"responds with {status}"):
        download_record(tmp_path, lambda *_: None, client)


def test_without_a_network(tmp_path):
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    client = httpx.Client(transport=httpx.MockTransport(refuse))
    with pytest.raises(DataSetError, match=r"cannot be reached \(no route\).*browser"):
        download_record(tmp_path, lambda *_: None, client)
    client = httpx.Client(transport=httpx.MockTransport(refuse))
    with pytest.raises(DataSetError, match=r"cannot be reached \(no route\).*pass --trust"):
        published_md5s(client)


def test_md5_sums_of_the_record():
    zenodo = Zenodo()
    client = httpx.Client(transport=httpx.MockTransport(zenodo))
    assert published_md5s(client) == {hashlib.md5(zenodo.body).hexdigest()}
    assert zenodo.ranges == []  # nothing was downloaded


def test_the_fixture_has_the_declared_size():
    assert TRAIN.shape[1:] == (len(NAMES), H, W)
