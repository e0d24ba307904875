"""Files that declare one channel, for ensembles that take several."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, FovStack, read_fovs
from support.image_bytes import tiff

H, W = 20, 24
SPEC = FovSpec(("SRS", "TPEF", "Transmission"), H, W)
SRS = FovSpec(("SRS",), H, W)
PLANES = np.random.default_rng(0).integers(0, 4096, (3, H, W), dtype=np.uint16)


def read(body: bytes, spec: FovSpec = SPEC, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), spec, **options)


def bare(description: str | None = None, tags: tuple = ()) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for n, plane in enumerate(PLANES):
            options = {"metadata": None, "contiguous": False, "extratags": list(tags)}
            writer.write(plane, photometric="minisblack", description=None if n else description, **options)
    return buffer.getvalue()


def ome(axis: str, name: str) -> bytes:
    stack = PLANES[:, None]
    return tiff(stack, ome=True, metadata={"axes": f"{axis}CYX", "Channel": {"Name": [name]}})


def micromanager(name: str) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for n, plane in enumerate(PLANES):
            text = json.dumps({"Axes": {"channel": name, "time": n}}).encode() + b"\0"
            tag = (51123, 2, len(text), text, True)
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False, extratags=[tag])
    return buffer.getvalue()


def scanimage(name: str) -> bytes:
    return bare(f"SI.hChannels.channelName = {{'{name}';'other'}}\nSI.hChannels.channelSave = 1\n")


def json_of(name: str) -> bytes:
    metadata = {"shape": [3, 1, H, W], "axes": "TCYX", "Channel": {"Name": [name]}}
    return bare(json.dumps(metadata))


KINDS: dict[str, Callable[[str], bytes]] = {
    "OME, times": lambda name: ome("T", name),
    "OME, depths": lambda name: ome("Z", name),
    "ScanImage": scanimage,
    "Micro-Manager": micromanager,
    "tifffile": json_of,
}


@pytest.mark.parametrize("name", ["SRS", "CARS"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_named_channel_is_one_channel(kind: str, name: str) -> None:
    body = KINDS[kind](name)
    with pytest.raises(
        errors.WrongChannelCount, match=f"has 1 channel: {name}; the ensemble takes 3"
    ) as caught:
        read(body)
    assert ("axes=" in str(caught.value)) == (name not in SPEC.channels)
    np.testing.assert_array_equal(read(body, SRS).pixels, PLANES[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_the_axes_and_channels_options_have_priority(kind: str) -> None:
    body = KINDS[kind]("SRS")
    assert read(body, axes="PCYX").notices[0].code == "channel-names"
    stack = read(body, axes="PCYX", channels=["SRS", "TPEF", "Transmission"])
    np.testing.assert_array_equal(stack.pixels[0], PLANES)


@pytest.mark.parametrize("axis", "TZ")
def test_a_single_unnamed_channel_is_ambiguous(axis: str) -> None:
    body = tiff(PLANES[:, None], ome=True, metadata={"axes": f"{axis}CYX"})
    with pytest.raises(errors.AmbiguousAxes, match="axes=PCYX"):
        read(body)
    np.testing.assert_array_equal(read(body, axes="PCYX").pixels[0], PLANES)
