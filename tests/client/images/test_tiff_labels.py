"""Channel names in the metadata of each page of a TIFF file."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, FovStack, read_fovs
from support.image_bytes import tiff

H, W = 20, 24
NAMES = ("SRS", "TPEF", "Transmission")
SHUFFLED = ("Transmission", "TPEF", "SRS")
SPEC = FovSpec(NAMES, H, W)
STACK = np.random.default_rng(0).integers(0, 4096, (4, 3, H, W), dtype=np.uint16)


def read(body: bytes, spec: FovSpec = SPEC, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), spec, **options)


def codes(stack: FovStack) -> set[str]:
    return {notice.code for notice in stack.notices}


def pages(planes: Sequence[np.ndarray], options: Sequence[dict], **writer_options) -> bytes:
    """Return a TIFF of pages, each written with its own options."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **writer_options) as writer:
        for plane, one in zip(planes, options, strict=True):
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False, **one)
    return buffer.getvalue()


# --- names in the tags of each page

PER_PAGE = {
    "PageName": lambda name: {"extratags": [(285, "s", 0, name, True)]},
    "description": lambda name: {"description": name},
    "description with more": lambda name: {"description": f'{{"channel": "{name}", "gain": 3}}'},
}


@pytest.mark.parametrize("big", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=["classic", "big", "MM"])
@pytest.mark.parametrize("kind", PER_PAGE)
@pytest.mark.parametrize("fovs", [1, 4])
@pytest.mark.parametrize("axes", [None, "PCYX"])
def test_names_in_the_tags_of_each_page_are_used(kind: str, fovs: int, axes: str | None, big: dict) -> None:
    planes = STACK[:fovs, ::-1].reshape(-1, H, W)
    body = pages(list(planes), [PER_PAGE[kind](name) for name in SHUFFLED * fovs], **big)
    stack = read(body, axes=axes if fovs > 1 else None)
    np.testing.assert_array_equal(stack.pixels, STACK[:fovs])
    one = read(body, FovSpec(("SRS",), H, W), axes=axes if fovs > 1 else None)
    np.testing.assert_array_equal(one.pixels, STACK[:fovs, :1])
    assert codes(one) >= {"channels-left-out"}


def test_names_of_pages_are_used_with_a_description_of_tifffile() -> None:
    options = [PER_PAGE["PageName"](name) for name in SHUFFLED]
    options[0]["description"] = f'{{"shape": [3, {H}, {W}]}}'
    np.testing.assert_array_equal(read(pages(list(STACK[0, ::-1]), options)).pixels[0], STACK[0])


@pytest.mark.parametrize(
    "options",
    [
        [{}, {}, PER_PAGE["description"]("SRS")],
        [PER_PAGE["description"](text) for text in ("no name", "TPEF", "SRS")],
        [PER_PAGE["description"]("SRS, TPEF and Transmission")] * 3,
        [PER_PAGE["PageName"](f"plate 3, {n}") for n in range(3)],
        [PER_PAGE["PageName"]("SRS/TPEF")] * 3,
    ],
    ids=["last page", "one is missing", "all on each page", "of no channel", "of two channels"],
)
def test_texts_of_pages_that_do_not_identify_channels_are_reported(options: list[dict]) -> None:
    stack = read(pages(list(STACK[0]), options))
    np.testing.assert_array_equal(stack.pixels[0], STACK[0])
    assert codes(stack) == {"channel-names"}


@pytest.mark.parametrize("text", ["Transmission;TPEF;SRS", '{"Labels": ["Transmission", "TPEF", "SRS"]}'])
@pytest.mark.parametrize("described", [1, 3])
def test_a_description_of_all_pages_is_not_a_label(text: str, described: int) -> None:
    options = [PER_PAGE["description"](text) if n < described else {} for n in range(3)]
    body = pages(list(STACK[0, ::-1]), options)
    assert read(body).notices[0].code == "channel-names"
    one = read(body, FovSpec(("SRS",), H, W))
    np.testing.assert_array_equal(one.pixels, STACK[0, ::-1][:, None])


def test_pages_with_names_of_other_channels_are_rejected() -> None:
    options = [PER_PAGE["PageName"](name) for name in ("SRS", "TPEF", "CARS")]
    with pytest.raises(errors.AmbiguousAxes, match="CARS"):
        read(pages(list(STACK[0]), options))


# --- planes without a label

LABELS = {
    "ImageJ": lambda labels: tiff(
        np.ascontiguousarray(STACK[:, ::-1]), imagej=True, metadata={"axes": "TCYX", "Labels": labels}
    ),
    "PageName": lambda labels: pages(
        list(STACK[:, ::-1].reshape(12, H, W)),
        [PER_PAGE["PageName"](label) if label else {} for label in labels],
    ),
}


@pytest.mark.parametrize("missing", [[0], [4], [11], [3, 7, 11], list(range(3, 12))], ids=str)
@pytest.mark.parametrize("kind", LABELS)
def test_planes_without_label_use_the_label_of_their_channel(kind: str, missing: list[int]) -> None:
    labels = ["" if n in missing else name for n, name in enumerate(SHUFFLED * 4)]
    stack = read(LABELS[kind](labels), axes=None if kind == "ImageJ" else "PCYX")
    np.testing.assert_array_equal(stack.pixels, STACK)
    assert stack.warnings == ()


@pytest.mark.parametrize("kind", LABELS)
def test_channels_without_labels_are_ambiguous(kind: str) -> None:
    labels = ["" if n % 3 == 1 else name for n, name in enumerate(SHUFFLED * 4)]
    with pytest.raises(errors.AmbiguousAxes, match="channels= with the names"):
        read(LABELS[kind](labels), axes=None if kind == "ImageJ" else "PCYX")


# --- labels that have a channel's name as one word of several


def imagej(labels: Sequence[str]) -> bytes:
    """Return a field of view with one label for each channel."""
    planes = np.concatenate([STACK[0], STACK[1]])[: len(labels)]
    return tiff(planes, imagej=True, metadata={"axes": "CYX", "Labels": list(labels)})


def ome(labels: Sequence[str]) -> bytes:
    planes = np.concatenate([STACK[0], STACK[1]])[: len(labels)]
    return tiff(planes, ome=True, metadata={"axes": "CYX", "Channel": {"Name": list(labels)}})


def page_named(labels: Sequence[str]) -> bytes:
    planes = np.concatenate([STACK[0], STACK[1]])[: len(labels)]
    return pages(list(planes), [PER_PAGE["PageName"](label) for label in labels])


SOURCES = [imagej, ome, page_named]
DOUBTFUL = [
    ("no SRS", "TPEF", "Transmission"),
    ("SRS off-resonance", "TPEF", "Transmission"),
    ("SRS", "TPEF (bleached)", "Transmission"),
    ("SRS a", "TPEF b", "Transmission c"),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("labels", DOUBTFUL, ids=str)
def test_names_in_labels_with_further_words_are_reported(source: Callable, labels: tuple[str, ...]) -> None:
    stack = read(source(labels))
    np.testing.assert_array_equal(stack.pixels[0], STACK[0])
    assert codes(stack) == {"channel-names"}
    assert next(label for label in labels if label not in NAMES) in stack.warnings[0]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "form", ["{}", "c:{n}/3 t:1/2 - {}", "{}-0001", "plate 3, {}, well B{n}", "{}.tif", "PMT{n}_{}_raw"]
)
def test_names_in_labels_with_equal_further_words_are_certain(source: Callable, form: str) -> None:
    stack = read(source([form.format(name, n=n + 1) for n, name in enumerate(NAMES)]))
    np.testing.assert_array_equal(stack.pixels[0], STACK[0])
    assert stack.warnings == ()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("other", ["SRS off", "no SRS", "SRS/TPEF", "TPEF 2 b"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_channel_with_the_exact_name_has_priority(source: Callable, other: str, place: int) -> None:
    labels = list(NAMES)
    labels.insert(place, other)
    stack = read(source(labels))
    planes = [n for n in range(4) if n != place]
    np.testing.assert_array_equal(stack.pixels[0], np.concatenate([STACK[0], STACK[1]])[planes])
    assert stack.warnings == (f"channels that the ensemble does not take were left out: {other}",)


@pytest.mark.parametrize("source", SOURCES[:2])
def test_errors_contain_the_names_in_the_file(source: Callable) -> None:
    with pytest.raises(errors.AmbiguousAxes, match="SRS a, SRS b, TPEF, Transmission;"):
        read(source(["SRS a", "SRS b", "TPEF", "Transmission"]))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text", [".tif" * 15_000 + "x", "SRS-" * 15_000 + "x", "c:1/3 " * 10_000, "-1" * 30_000]
)
@pytest.mark.parametrize("kind", ["PageName", "description", "ImageJ"])
def test_long_labels_take_little_time(kind: str, text: str) -> None:
    if kind == "ImageJ":
        body = tiff(
            STACK[0], imagej=True, metadata={"axes": "CYX", "Labels": [f"{text}{n}" for n in range(3)]}
        )
    else:
        body = pages(list(STACK[0]), [PER_PAGE[kind](f"{text}{n}") for n in range(3)])
    try:
        stack = read(body)
    except errors.AmbiguousAxes:
        return
    assert len("".join(stack.warnings)) < 2000
