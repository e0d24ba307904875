"""Metadata that programs write into TIFF files: calibration, names, plans, colours, orientation."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.channel_names import clean_label, name_planes, scanimage_names
from senoscope_client.images.reader import FovSpec, FovStack, open_fovs, read_fovs, zero_levels
from senoscope_client.simulation.replay import Replay
from support.crafted_tiff import crafted, description, one_page
from support.image_bytes import tiff

H, W = 20, 24
NAMES = ("SRS", "TPEF", "Transmission")
SPEC = FovSpec(NAMES, H, W)
RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 4096, (4, 3, H, W), dtype=np.uint16)
ONE = STACK[0]


def pages(planes: Sequence[np.ndarray], first: str | None = None, **options) -> bytes:
    """Return a TIFF of bare pages, the first of which has a description."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for n, plane in enumerate(planes):
            writer.write(
                plane,
                photometric="minisblack",
                metadata=None,
                contiguous=False,
                description=first if n == 0 else None,
                compression="zlib",
            )
    return buffer.getvalue()


def read(body: bytes, spec: FovSpec = SPEC, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), spec, **options)


def codes(stack: FovStack) -> set[str]:
    return {notice.code for notice in stack.notices}


def imagej(lines: str, planes: int = 3) -> str:
    return f"ImageJ=1.54f\nimages={planes}\nchannels=3\nhyperstack=true\n{lines}\n"


# --- stored numbers and counts


SIGNED = (STACK.astype(np.int32) - 1000).astype(np.int16)


def test_the_shift_of_signed_pixels_by_imagej_is_reverted() -> None:
    stored = (SIGNED.astype(np.int32) + 32768).astype(np.uint16).reshape(12, H, W)
    text = imagej("frames=4\ncf=0\nc0=-32768.0\nc1=1.0\nvunit=Gray Value", 12)
    stack = read(pages(list(stored), text))
    np.testing.assert_array_equal(stack.pixels, SIGNED)
    assert stack.calibration is not None
    assert (stack.calibration.offset, stack.calibration.slope) == (-32768, 1)
    assert codes(stack) == {"calibration"}
    assert zero_levels(stack.pixels)[0] < 0 < zero_levels(stored.reshape(STACK.shape))[0] - 30000


@pytest.mark.parametrize(
    ("lines", "dtype", "slope", "offset"),
    [
        ("cf=0\nc0=10.0\nc1=0.5", np.uint16, 0.5, 10),
        ("cf=0\nc0=-128.0\nc1=1.0", np.uint8, 1, -128),
        # ImageJ itself adds 32768 to signed numbers when it reads them.
        ("cf=0\nc0=-32768.0\nc1=1.0", np.int16, 1, 0),
        ("cf=0\nc0=0\nc1=1.0", np.uint16, 1, 0),
        # Not calibrated: 32-bit images, and lines without a function.
        ("cf=0\nc0=5.0\nc1=2.0", np.float32, 1, 0),
        ("c0=5.0\nc1=2.0", np.uint16, 1, 0),
    ],
)
def test_linear_calibrations_of_imagej_are_applied(
    lines: str, dtype: type, slope: float, offset: float
) -> None:
    stored = (ONE % 200).astype(dtype)
    stack = read(pages(list(stored), imagej(lines)))
    np.testing.assert_array_equal(stack.pixels[0], stored.astype(np.float64) * slope + offset)
    changed = (slope, offset) != (1, 0)
    assert (stack.calibration is not None) == changed
    assert ("calibration" in codes(stack)) == changed


@pytest.mark.parametrize(
    "lines", ["cf=3\nc0=1\nc1=2\nc2=3", "cf=20", "cf=0\nc0=1\nc1=0", "cf=x", "cf=0\nc0=nan\nc1=1"]
)
def test_other_calibrations_of_imagej_are_rejected(lines: str) -> None:
    with pytest.raises(errors.UnreadableImage, match="ImageJ calibration"):
        read(pages(list(ONE), imagej(lines)))


def gdal(*items: str) -> str:
    return f"<GDALMetadata>{''.join(items)}</GDALMetadata>"


def item(role: str, value: str, sample: int = 0) -> str:
    return f'<Item name="{role.upper()}" sample="{sample}" role="{role}">{value}</Item>'


def with_tags(*tags: tuple, **options) -> bytes:
    return tiff(ONE, extratags=[(*tag, False) for tag in tags], metadata={"axes": "CYX"}, **options)


def test_scale_and_offset_in_tags_are_applied() -> None:
    xml = gdal(item("scale", "2"), item("offset", "-100"))
    stack = read(with_tags((42112, "s", 0, xml)))
    np.testing.assert_array_equal(stack.pixels[0], ONE * 2.0 - 100)
    assert "GDAL_METADATA" in stack.warnings[0]


@pytest.mark.parametrize(
    "xml",
    [
        gdal(item("scale", "2"), item("scale", "3", 1)),
        gdal(item("offset", "many")),
        gdal(item("scale", "0")),
        "<!DOCTYPE x><GDALMetadata/>",
    ],
)
def test_scales_that_cannot_be_applied_are_rejected(xml: str) -> None:
    with pytest.raises(errors.UnreadableImage, match="GDAL"):
        read(with_tags((42112, "s", 0, xml)))


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ((50714, "H", 1, 512), "BlackLevel"),
        ((291, "H", 4, (1, 2, 3, 4)), "GrayResponseCurve"),
        ((42113, "s", 0, "-999"), "without data"),
    ],
)
def test_conversions_that_are_not_applied_are_reported(tag: tuple, text: str) -> None:
    stack = read(with_tags(tag))
    np.testing.assert_array_equal(stack.pixels[0], ONE)
    assert codes(stack) == {"values"}
    assert text in stack.warnings[0]


def test_an_undefined_sample_format_is_reported() -> None:
    stack = read(crafted(one_page(W, H) | {339: (3, 1, 4)}, pages=3))
    assert stack.warnings == ("the file does not declare the type of its numbers: they are taken as uint16",)


def patched_pages(body: bytes, tag: int, value: int) -> bytes:
    """Return a little-endian TIFF with the value of one tag replaced on each page."""
    data = bytearray(body)
    offset = int.from_bytes(data[4:8], "little")
    while offset:
        count = int.from_bytes(data[offset : offset + 2], "little")
        for at in range(offset + 2, offset + 2 + 12 * count, 12):
            if int.from_bytes(data[at : at + 2], "little") == tag:
                data[at + 8 : at + 12] = value.to_bytes(4, "little")
        end = offset + 2 + 12 * count
        offset = int.from_bytes(data[end : end + 4], "little")
    return bytes(data)


def test_square_roots_of_counts_are_rejected() -> None:
    with pytest.raises(errors.UnreadableImage, match="square roots"):
        read(with_tags((33445, "I", 1, 2)))


def ome_with_type(pixel_type: str, array: np.ndarray) -> bytes:
    body = tiff(array, ome=True, metadata={"axes": "CYX"})
    old = f'Type="{array.dtype.name}"'.encode()
    assert old in body
    return body.replace(old, f'Type="{pixel_type}"'.encode().ljust(len(old)))


def test_contradictory_types_in_ome_and_tags_are_rejected_if_values_differ() -> None:
    small = (ONE % 1000).astype(np.uint16)
    np.testing.assert_array_equal(read(ome_with_type("int16", small)).pixels[0], small)
    large = small.copy()
    large[1, 0, 0] = 40000
    with pytest.raises(errors.UnreadableImage, match="int16 pixels, its pages uint16"):
        read(ome_with_type("int16", large))
    with pytest.raises(errors.UnreadableImage, match="float32 pixels, its pages uint32"):
        read(ome_with_type("float", small.astype(np.uint32)))


def test_signed_pixels_are_read_as_signed() -> None:
    for body in (tiff(SIGNED, metadata={"axes": "TCYX"}), tiff(SIGNED, ome=True, metadata={"axes": "TCYX"})):
        np.testing.assert_array_equal(read(body).pixels, SIGNED)


# --- names of channels

SHUFFLED = ("Transmission", "TPEF", "SRS")


def labelled(labels: Sequence[str], axes: str = "TCYX") -> bytes:
    """Return the stack with its channels in reverse order, as ImageJ TIFF."""
    array = np.ascontiguousarray(STACK[:, ::-1])
    if "C" not in axes:
        array = array.reshape(12, H, W)
    return tiff(array, imagej=True, metadata={"axes": axes, "Labels": list(labels)})


def label_each(form: str) -> list[str]:
    return [
        form.format(name=name, c=c + 1, t=t + 1, n=3 * t + c + 1)
        for t in range(4)
        for c, name in enumerate(SHUFFLED)
    ]


FORMS = [
    "{name}",
    "c:{c}/3 t:{t}/4 - {name}",
    "c:{c}/3 t:{t}/4 z:1/1 - {name} #1",
    "{name}-{t:04d}",
    "{name}_{t}",
    "{name}.tif",
    "plate 3, {name}, well B2",
    "dish1_{name}_{n:03d}.ome.tif",
    "{name}\nExposure 10 ms",
    "t:{t}/4 c:{c}/3 - plate1.lif - {name}",
]


@pytest.mark.parametrize("axes", ["TCYX", "ZYX"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axes_option", [None, "PCYX"])
def test_channel_names_in_labels_are_used_with_and_without_channel_axis(
    form: str, axes: str, axes_option: str | None
) -> None:
    stack = read(labelled(label_each(form), axes), axes=axes_option)
    np.testing.assert_array_equal(stack.pixels, STACK)
    assert stack.warnings == ()


def test_slices_with_labels_channel_by_channel_are_unfolded() -> None:
    planes = STACK[:, ::-1].swapaxes(0, 1).reshape(12, H, W)
    labels = [f"{name}-{t:04d}" for name in SHUFFLED for t in range(4)]
    body = tiff(np.ascontiguousarray(planes), imagej=True, metadata={"axes": "ZYX", "Labels": labels})
    for axes_option in (None, "CPYX"):
        np.testing.assert_array_equal(read(body, axes=axes_option).pixels, STACK)
    with pytest.raises(errors.AmbiguousAxes, match=r"ImageJ labels.*axes="):
        read(body, axes="PCYX")


@pytest.mark.parametrize(
    "form", ["c:{c}/3 t:{t}/4 - plate3.lif", "SRS and TPEF of plate 3", "PMT{c}", "SRS plate {t}"]
)
def test_labels_without_channel_names_are_reported(form: str) -> None:
    stack = read(labelled(label_each(form)))
    np.testing.assert_array_equal(stack.pixels, STACK[:, ::-1])
    assert codes(stack) == {"channel-names"}
    with pytest.raises(errors.AmbiguousAxes):
        read(labelled(label_each(form), "ZYX"))


@pytest.mark.parametrize(
    "body",
    [
        tiff(
            ONE,
            imagej=True,
            metadata={"axes": "CYX", "Info": "Channel 1 Name = Transmission\nChannel 2 = SRS"},
        ),
        tiff(ONE, metadata={"axes": "CYX", "ChannelOrder": "Transmission/SRS/TPEF"}),
        tiff(ONE, metadata=None, software="Acquisition 3 (SRS on PMT 2)"),
        tiff(ONE, ome=True, metadata={"axes": "CYX", "Description": "Transmission, then SRS"}),
    ],
    ids=["ImageJ's info", "JSON", "software", "OME's description"],
)
def test_channel_names_in_other_texts_are_reported(body: bytes) -> None:
    stack = read(body)
    np.testing.assert_array_equal(stack.pixels[0], ONE)
    assert codes(stack) == {"channel-names"}
    assert "SRS" in stack.warnings[0]
    assert read(body, channels=NAMES).warnings == ()


def test_the_channels_option_has_priority_over_labels() -> None:
    body = labelled(label_each("{name}"))
    stack = read(body, channels=["TPEF", "Transmission", "SRS"])
    np.testing.assert_array_equal(stack.pixels, STACK[:, ::-1][:, [2, 0, 1]])


def test_channel_names_are_matched_as_words() -> None:
    assert name_planes(["SRS2", "mySRS", "SRS-2", "srs"], ["SRS"]) == ("SRS2", "mySRS", "SRS", "SRS")
    assert name_planes(["SRS 2 b", "SRS"], ["SRS", "SRS 2"]) == ("SRS 2", "SRS")
    assert name_planes(["SRS", "SRS off", "b TPEF"], ["SRS", "TPEF"]) == ("SRS", "SRS off", "TPEF")
    assert name_planes(["", "a\nSRS"], ["SRS"]) == ("", "a")
    assert clean_label("c:1/3 t:1/2 - NAME-0001") == "NAME"


def ndtiff(order: Sequence[int], *, drop: int = 0, axes: bool = True, **more) -> bytes:
    """Return pages in the order of acquisition, each with Micro-Manager's metadata."""
    buffer = io.BytesIO()
    events = [(t, c) for t in range(4) for c in order]
    with tifffile.TiffWriter(buffer) as writer:
        for t, c in events[: len(events) - drop]:
            metadata: dict[str, object] = {"Axes": {"channel": NAMES[c], "time": t}}
            if not axes:
                metadata = {"Channel": NAMES[c], "FrameIndex": t, "ChannelIndex": c, "PositionIndex": 0}
            text = json.dumps(metadata | more).encode() + b"\0"
            writer.write(
                STACK[t, c],
                photometric="minisblack",
                metadata=None,
                contiguous=False,
                extratags=[(51123, 2, len(text), text, True)],
            )
    return buffer.getvalue()


@pytest.mark.parametrize("axes", [True, False])
@pytest.mark.parametrize("axes_option", [None, "PCYX"])
def test_channels_in_the_metadata_of_each_page_are_used(
    axes: bool, axes_option: str | None, tmp_path: Path
) -> None:
    body = ndtiff([1, 2, 0], axes=axes, XPositionUm=5.0, YPositionUm=-2.0, PixelSizeUm=0.5)
    stack = read(body, axes=axes_option)
    np.testing.assert_array_equal(stack.pixels, STACK)
    assert stack.warnings == ()
    (tmp_path / "a.tif").write_bytes(body)
    acquired = list(Replay([tmp_path], axes=axes_option, spec=SPEC))
    np.testing.assert_array_equal([one.pixels for one in acquired], STACK)
    assert acquired[0].position_um is not None
    assert (acquired[0].position_um.x, acquired[0].pixel_size_um) == (5.0, 0.5)


def test_pages_of_an_incomplete_channel_are_left_out() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for t in range(4):
            for name, plane in [*zip(NAMES, STACK[t], strict=True)] + [("GFP", STACK[t, 0] + 1)] * (t == 2):
                text = json.dumps({"Axes": {"channel": name, "time": t}}).encode() + b"\0"
                tag = (51123, 2, len(text), text, True)
                writer.write(
                    plane, photometric="minisblack", metadata=None, contiguous=False, extratags=[tag]
                )
    np.testing.assert_array_equal(read(buffer.getvalue()).pixels, STACK)


SI = (
    "SI.hChannels.channelName = {'Reference';'Transmission';'TPEF';'SRS'}\n"
    "SI.hChannels.channelSave = [2;3;4]\n"
)


@pytest.mark.parametrize("where", ["description", "software", "artist"])
@pytest.mark.parametrize("axes_option", [None, "PCYX"])
@pytest.mark.parametrize("prefix", ["", "scanimage."])
def test_channels_of_scanimage_are_used(where: str, axes_option: str | None, prefix: str) -> None:
    text = "\n".join(f"{prefix}{line}" for line in SI.splitlines())
    planes = STACK[:, ::-1].reshape(12, H, W)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for plane in planes:
            extra = [(315, "s", 0, text, True)] if where == "artist" else []
            writer.write(
                plane,
                photometric="minisblack",
                metadata=None,
                contiguous=False,
                description=text if where == "description" else None,
                software=text if where == "software" else None,
                extratags=extra,
            )
    stack = read(buffer.getvalue(), axes=axes_option)
    np.testing.assert_array_equal(stack.pixels, STACK)
    assert stack.warnings == ()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (SI, ("Transmission", "TPEF", "SRS")),
        ("scanimage.SI.hChannels.channelSave = [1;2]", ("Channel 1", "Channel 2")),
        ("SI.hChannels.channelSave = 1\nSI.hChannels.channelName = 'SRS'", ("SRS",)),
        (
            "state.acq.savingChannel1=1\nstate.acq.savingChannel2=0\nstate.acq.savingChannel3=1",
            ("Channel 1", "Channel 3"),
        ),
        ("channelName = {'a' 'b'}", ("a", "b")),
        ('{"channelName": ["a", "b"], "channelSave": [2, 1]}', ("b", "a")),
        ("nothing", None),
    ],
)
def test_scanimage_names(text: str, names: tuple[str, ...] | None) -> None:
    assert scanimage_names(text) == names


def test_files_of_several_positions_keep_their_channel_names_in_replay(tmp_path: Path) -> None:
    """Micro-Manager writes a file per position, whose OME-XML describes all of them."""
    for position in range(2):
        images = "".join(
            f'<Image ID="Image:{p}"><Pixels ID="Pixels:{p}" DimensionOrder="XYCZT" Type="uint16" SizeX="{W}" '
            f'SizeY="{H}" SizeC="3" SizeZ="1" SizeT="2">'
            + "".join(f'<Channel ID="Channel:{p}:{c}" Name="{name}"/>' for c, name in enumerate(SHUFFLED))
            + "".join(
                f'<TiffData IFD="{3 * t + c}" FirstC="{c}" FirstT="{t}" PlaneCount="1">'
                f'<UUID FileName="scan_Pos{p}.ome.tif">urn:uuid:{p}</UUID></TiffData>'
                for t in range(2)
                for c in range(3)
            )
            + "</Pixels></Image>"
            for p in range(2)
        )
        xml = f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{images}</OME>'
        planes = STACK[2 * position : 2 * position + 2, ::-1].reshape(6, H, W)
        (tmp_path / f"scan_Pos{position}.ome.tif").write_bytes(pages(list(planes), xml))
    warnings: list[str] = []
    replay = Replay([tmp_path], spec=SPEC, on_warning=lambda _, text: warnings.append(text))
    np.testing.assert_array_equal([one.pixels for one in replay], STACK)
    assert warnings == ["the file describes 2 images and contains 1 of them"] * 2


@pytest.mark.parametrize(
    "body", [labelled(label_each("{name}"), "ZYX"), labelled(label_each("PMT{c}"), "ZYX")]
)
def test_replay_raises_the_same_errors_as_read_fovs(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(body)

    def outcome(read_all: Callable[[], np.ndarray]) -> object:
        try:
            return read_all().tolist()
        except errors.SenoscopeError as error:
            return type(error)

    posted = outcome(lambda: read(body).pixels)
    assert posted == outcome(lambda: np.stack([one.pixels for one in Replay([tmp_path], spec=SPEC)]))


def test_images_of_one_plane_each_need_channel_names_or_axes() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as writer:
        for n in range(12):
            metadata = {"axes": "YX", "Channel": {"Name": SHUFFLED[n % 3]}}
            writer.write(STACK[n // 3, 2 - n % 3], photometric="minisblack", metadata=metadata)
    for axes_option in (None, "PCYX"):
        np.testing.assert_array_equal(read(buffer.getvalue(), axes=axes_option).pixels, STACK)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as writer:
        for plane in ONE:
            writer.write(plane, photometric="minisblack", metadata={"axes": "YX"})
    with pytest.raises(errors.AmbiguousAxes, match="axes=PCYX"):
        read(buffer.getvalue())
    np.testing.assert_array_equal(read(buffer.getvalue(), axes="PCYX").pixels[0], ONE)


# --- scans that were stopped


def stopped_ome(planned: int, planes: int, *, declared: int, z: int = 1) -> bytes:
    """Return a TIFF with the OME-XML of a plan, and the pages of it that were acquired."""
    order = [(t, s, c) for t in range(planned) for s in range(z) for c in range(3)]
    data = "".join(
        f'<TiffData FirstC="{c}" FirstT="{t}" FirstZ="{s}" IFD="{n}" PlaneCount="1"/>'
        for n, (t, s, c) in enumerate(order[:declared])
    )
    channels = "".join(f'<Channel ID="Channel:0:{n}" Name="{name}"/>' for n, name in enumerate(NAMES))
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
        f'SizeX="{W}" SizeY="{H}" SizeC="3" SizeZ="{z}" SizeT="{planned}">'
        f"{channels}{data}</Pixels></Image></OME>"
    )
    return pages(list(STACK.reshape(12, H, W)[:planes]), xml)


def shaped(frames: int, planes: int) -> bytes:
    text = json.dumps({"shape": [frames, 3, H, W], "axes": "TCYX"})
    return pages(list(STACK.reshape(12, H, W)[:planes]), text)


@dataclass(frozen=True)
class Stopped:
    """A file of an incomplete scan, and its planned and complete fields of view."""

    name: str
    make: Callable[[], bytes]
    planned: int
    complete: int


STOPPED = [
    Stopped("ome", lambda: stopped_ome(4, 6, declared=6), 4, 2),
    Stopped("ome, all planes declared", lambda: stopped_ome(4, 6, declared=12), 4, 2),
    Stopped("ome, within a field of view", lambda: stopped_ome(4, 8, declared=8), 4, 2),
    Stopped("ome, within a z stack", lambda: stopped_ome(3, 9, declared=9, z=2), 6, 3),
    Stopped("imagej", lambda: pages(list(STACK.reshape(12, H, W)[:6]), imagej("frames=4", 12)), 4, 2),
    Stopped(
        "imagej, one left", lambda: pages(list(STACK.reshape(12, H, W)[:4]), imagej("frames=4", 12)), 4, 1
    ),
    Stopped("tifffile", lambda: shaped(4, 9), 4, 3),
    Stopped("micro-manager", lambda: ndtiff([0, 1, 2], drop=4), 3, 2),
    Stopped(
        "scanimage", lambda: pages(list(STACK.reshape(12, H, W)[:7]), SI.replace("[2;3;4]", "[4;3;2]")), 3, 2
    ),
]


@pytest.mark.parametrize("axes_option", [None, "PCYX"])
@pytest.mark.parametrize("stopped", STOPPED, ids=lambda stopped: stopped.name)
def test_complete_fields_of_view_of_a_stopped_scan_are_read(
    stopped: Stopped, axes_option: str | None
) -> None:
    if axes_option is not None and stopped.complete == 1:
        axes_option = "CYX"  # a single field of view has no axis for it
    stack = read(stopped.make(), axes=axes_option)
    np.testing.assert_array_equal(stack.pixels, STACK.reshape(4, 3, H, W)[: stopped.complete])
    (notice,) = stack.notices
    assert notice.code == "incomplete"
    assert notice.text.startswith(f"{stopped.planned} fields of view were ")
    assert f", {stopped.complete} are complete and taken" in notice.text


def position_images(taken: int) -> bytes:
    """Return a TIFF with a plan of four positions, an image each, and the given number of pages."""
    images = "".join(
        f'<Image ID="Image:{p}"><Pixels ID="Pixels:{p}" DimensionOrder="XYCZT" Type="uint16" SizeX="{W}" '
        f'SizeY="{H}" SizeC="3" SizeZ="1" SizeT="1">'
        + "".join(f'<TiffData FirstC="{c}" IFD="{3 * p + c}" PlaneCount="1"/>' for c in range(3))
        + "</Pixels></Image>"
        for p in range(4)
    )
    xml = (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{images}</OME>'
    )
    return pages(list(STACK.reshape(12, H, W)[:taken]), xml)


@pytest.mark.parametrize("taken", [6, 7, 11])
def test_positions_without_pages_are_reported(taken: int) -> None:
    stack = read(position_images(taken))
    np.testing.assert_array_equal(stack.pixels, STACK[: taken // 3])
    assert codes(stack) == {"incomplete"}
    begun = -(-taken // 3)
    expected = [f"the file describes 4 images and contains {begun} of them"] * (begun < 4)
    if taken % 3:
        expected.append(f"{begun} images were begun, {taken // 3} hold complete fields of view and are taken")
    assert list(stack.warnings) == expected
    with pytest.raises(errors.UnreadableImage, match="no complete field of view"):
        read(position_images(2))


def test_a_scan_without_complete_field_of_view_is_rejected_with_both_numbers() -> None:
    with pytest.raises(errors.UnreadableImage, match=r"4 were planned.*2 of their 12 pages exist"):
        read(stopped_ome(4, 2, declared=2))


def test_an_impossible_plan_is_rejected_in_little_memory(tracemalloc_peak) -> None:
    body = shaped(10**9, 6)
    with (
        tracemalloc_peak() as peak,
        pytest.raises(errors.UnreadableImage, match="describes 3000000000 pages"),
    ):
        read(body)
    assert peak() < 20e6


def test_pages_without_description_are_reported() -> None:
    xml = stopped_ome(2, 6, declared=6)
    start, end = xml.index(b"<?xml"), xml.index(b"</OME>") + 6
    body = pages(list(STACK.reshape(12, H, W)[:9]), xml[start:end].decode())
    stack = read(body)
    np.testing.assert_array_equal(stack.pixels, STACK[:2])
    assert "3 of 9 pages are not described" in stack.warnings[0]


# --- colours and orientation

GREY = (ONE[0] % 256).astype(np.uint8)
RGB = np.stack([GREY] * 3, axis=-1)


def test_a_grey_picture_saved_as_colours_is_one_channel() -> None:
    body = tiff(RGB, photometric="rgb")
    with pytest.raises(errors.WrongChannelCount, match="has 1 channel, a grey picture saved as colours"):
        read(body)
    stack = read(body, FovSpec(("grey",), H, W))
    np.testing.assert_array_equal(stack.pixels, GREY[None, None])
    assert codes(stack) == {"grey-samples"}
    named = read(body, channels=NAMES)
    np.testing.assert_array_equal(named.pixels[0], [GREY] * 3)
    assert "grey-samples" in codes(named)


def test_uniform_colours_are_channels() -> None:
    stack = read(tiff(np.full((H, W, 3), 7, np.uint8), photometric="rgb"))
    assert codes(stack) == {"axes"}


@pytest.mark.parametrize("top", [(65535, 65535, 65535), (0, 65535, 0), (65280, 0, 65280)])
def test_a_proportional_colour_table_is_ignored_and_reported(top: tuple[int, int, int]) -> None:
    table = np.round(np.linspace(0, 1, 256) * np.array(top)[:, None]).astype(np.uint16)
    body = tiff(GREY, photometric="palette", colormap=table)
    stack = read(body, FovSpec(("grey",), H, W))
    np.testing.assert_array_equal(stack.pixels[0, 0], GREY)
    assert codes(stack) == {"palette"}


def test_other_colour_tables_are_rejected() -> None:
    ramp = np.stack([np.arange(256)] * 3).astype(np.uint16) * 257
    fire = np.stack([np.arange(256), np.arange(256) ** 2 // 255, np.zeros(256)]).astype(np.uint16) * 257
    for table in (ramp[:, ::-1], fire, np.zeros_like(ramp), RNG.permuted(ramp, axis=1)):
        body = tiff(GREY, photometric="palette", colormap=np.ascontiguousarray(table))
        with pytest.raises(errors.UnreadableImage, match="colour table"):
            read(body, FovSpec(("grey",), H, W))


@pytest.mark.parametrize("photometric", ["separated", "ycbcr", "cielab"])
def test_other_colour_spaces_are_rejected(photometric: str) -> None:
    samples = 4 if photometric == "separated" else 3
    body = patched_pages(
        tiff(np.zeros((H, W, samples), np.uint8), photometric="rgb", metadata=None),
        262,
        {"separated": 5, "ycbcr": 6, "cielab": 8}[photometric],
    )
    with pytest.raises(errors.UnreadableImage, match="colours"):
        read(body)


def test_white_is_zero_is_reported_and_not_applied() -> None:
    stack = read(tiff(ONE, photometric="miniswhite", metadata={"axes": "CYX"}))
    np.testing.assert_array_equal(stack.pixels[0], ONE)
    assert "MinIsWhite" in stack.warnings[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rgb", [False, True])
def test_images_are_turned_by_their_orientation_tag(orientation: int, rgb: bool, tmp_path: Path) -> None:
    from PIL import Image

    picture = np.ascontiguousarray(np.moveaxis((ONE % 251).astype(np.uint8), 0, -1)) if rgb else GREY
    tag = (274, "H", 1, orientation, True)
    path = tmp_path / "turned.tif"
    # Compressed, because Pillow 13 does not turn images that it maps into memory.
    options = {"compression": "zlib", "metadata": None, "extratags": [tag]}
    tifffile.imwrite(path, picture, photometric="rgb" if rgb else "minisblack", **options)
    with Image.open(path) as other:
        expected = np.array(Image.Image.copy(other))  # Pillow turns images when it loads them
    names = NAMES if rgb else ("grey",)
    stack = read_fovs(path, FovSpec(names, *expected.shape[:2]))
    np.testing.assert_array_equal(stack.pixels[0], np.moveaxis(expected, -1, 0) if rgb else expected[None])
    assert ("orientation" in codes(stack)) == (orientation != 1)


def test_pages_of_different_orientation_are_rejected() -> None:
    tag = (274, "H", 1, 4, True)  # of the first page only
    with pytest.raises(errors.AmbiguousAxes, match="different orientation"):
        read(tiff(ONE, metadata=None, extratags=[tag]))
    with pytest.raises(errors.UnreadableImage, match="unknown orientation"):
        read(crafted(one_page(W, H) | {274: (3, 1, 9)}, pages=3))


def test_an_invalid_description_is_reported_and_ignored() -> None:
    body = crafted(one_page(W, H) | description("ImageJ=1.53\nimages=many\n"), pages=3)
    with pytest.raises(errors.AmbiguousAxes, match="does not match its pages"):
        read(body)
    stack = read(body, axes="CYX")
    assert codes(stack) == {"pages-left-out"}


def test_notices_are_available_before_pixels_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(stopped_ome(4, 6, declared=6))
    with open_fovs(tmp_path / "a.tif", SPEC) as stack:
        assert len(stack) == 2
        assert stack.notices[0].code == "incomplete"
        np.testing.assert_array_equal(stack.read(1), STACK[1])
