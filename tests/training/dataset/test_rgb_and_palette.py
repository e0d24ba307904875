"""Images that do not contain counts: grey saved as RGB, palettes, few bits."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.reading import inspect_data_set, load_fov
from support.image_bytes import tiff
from support.labelled_folders import SIZE, config, fov, write

GREY = fov(3, dtype="uint8")[0]
RAMP = np.arange(256)
FIRE = np.stack([RAMP, np.maximum(RAMP - 80, 0), np.maximum(2 * RAMP - 255, 0)], 1).astype(np.uint8)


def pillow(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def with_palette(palette: np.ndarray, numbers: np.ndarray = GREY) -> Image.Image:
    image = Image.fromarray(numbers)
    image.putpalette(palette.tobytes())
    return image


# A palette of greys may have any order.
ORDER = np.random.default_rng(4).permutation(256).astype(np.uint8)
SHUFFLED = with_palette(np.stack([np.argsort(ORDER).astype(np.uint8)] * 3, 1), ORDER[GREY])

GREYS = np.stack([RAMP] * 3, 1).astype(np.uint8)
GREY_IMAGES = {
    "rgb.png": (pillow(Image.fromarray(np.dstack([GREY] * 3)), "PNG"), "three colour samples are equal"),
    "rgb.tif": (tiff(np.dstack([GREY] * 3), photometric="rgb"), "three colour samples are equal"),
    "palette.png": (
        pillow(with_palette(GREYS), "PNG"),
        "palette of greys",
    ),
    "shuffled.png": (pillow(SHUFFLED, "PNG"), "palette of greys"),
    "palette.tif": (pillow(with_palette(GREYS), "TIFF"), "colour table"),
}
COLOUR_PALETTES = {
    "fire.png": pillow(with_palette(FIRE), "PNG"),
    "fire.tif": pillow(with_palette(FIRE), "TIFF"),
}


@pytest.mark.parametrize("name", GREY_IMAGES)
def test_a_grey_image_is_one_channel_in_all_formats(tmp_path, name):
    data, warning = GREY_IMAGES[name]
    write(tmp_path, {f"control/{n}{name}": data for n in range(2)} | {f"senescent/{name}": tiff(fov(4))})
    refused = inspect_data_set(config(tmp_path), SIZE).faults
    assert [fault.kind for fault in refused if fault.file.startswith("control")] == ["grey", "grey"]

    repeating = config(tmp_path, grey="repeat")
    np.testing.assert_array_equal(load_fov(f"control/0{name}", repeating, SIZE), np.stack([GREY] * 3))
    remarks = inspect_data_set(repeating, SIZE).remarks
    assert any(warning in remark for remark in remarks), remarks


@pytest.mark.parametrize("name", COLOUR_PALETTES)
@pytest.mark.parametrize("grey", ["refuse", "repeat"])
def test_a_colour_palette_is_refused(tmp_path, name, grey):
    write(tmp_path, {f"control/{name}": COLOUR_PALETTES[name], "senescent/a.tif": tiff(fov(4))})
    with pytest.raises(DataSetError, match=r"colour (palette|table)"):
        load_fov(f"control/{name}", config(tmp_path, grey=grey), SIZE)


def test_few_bits_are_scaled_with_a_warning(tmp_path):
    binary = Image.fromarray(GREY > 100)
    write(tmp_path, {"control/mask.png": pillow(binary, "PNG"), "senescent/a.tif": tiff(fov(4))})
    repeating = config(tmp_path, grey="repeat")
    assert set(np.unique(load_fov("control/mask.png", repeating, SIZE))) == {0, 255}
    assert any("1-bit samples" in remark for remark in inspect_data_set(repeating, SIZE).remarks)


def in_colour(samples: tuple[int, ...], pixels: np.ndarray) -> np.ndarray:
    """Return [H, W, 3] with the pixels in some samples and zeros in the others."""
    image = np.zeros((*pixels.shape, 3), np.uint8)
    image[:, :, list(samples)] = pixels[:, :, None]
    return image


def coloured(suffix: str, samples: tuple[int, ...], pixels: np.ndarray) -> bytes:
    image = in_colour(samples, pixels)
    if suffix == ".png":
        return pillow(Image.fromarray(image), "PNG")
    if suffix == ".planes.tif":
        return tiff(image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    return tiff(image, photometric="rgb")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".planes.tif"])
@pytest.mark.parametrize("samples", [(0,), (1,), (2,), (0, 1), (1, 2)])
@pytest.mark.parametrize("channels", [("SRS",), ("SRS", "TPEF"), ("SRS", "TPEF", "Transmission")])
def test_an_image_of_one_channel_in_a_single_colour_is_grey(tmp_path, suffix, samples, channels):
    made = {
        f"{label}/{n}{suffix}": coloured(suffix, samples, fov(10 * n + len(label), dtype="uint8")[0])
        for n in range(3)
        for label in ("control", "senescent")
    }
    root = write(tmp_path, made)
    refused = inspect_data_set(config(root, channels=channels), SIZE).faults
    assert {fault.kind for fault in refused} == ({"grey"} if len(channels) > 1 else set())
    repeating = config(root, channels=channels, grey="repeat")
    found = inspect_data_set(repeating, SIZE)
    assert not found.faults
    assert any("one channel in a single colour" in warning.text for warning in found.warnings)
    expected = np.stack([fov(7, dtype="uint8")[0]] * len(channels))
    np.testing.assert_array_equal(load_fov(f"control/0{suffix}", repeating, SIZE), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".planes.tif"])
@pytest.mark.parametrize("grey", ["refuse", "repeat"])
@pytest.mark.parametrize("colours", [((0,), (1,), (2,)), ((0, 1, 2),) * 3, ((0,), (0, 1, 2), (0, 2))])
def test_channels_in_single_colours_are_detected_and_combined(tmp_path, suffix, grey, colours):
    made = {
        f"{('control', 'senescent')[n % 2]}/S{n}_ch{c:02d}{suffix}": coloured(
            suffix, colours[c], fov(n, dtype="uint8")[c]
        )
        for n in range(6)
        for c in range(3)
    }
    (fault,) = inspect_data_set(config(write(tmp_path, made), grey=grey), SIZE).faults
    assert fault.kind == "per-channel"
    setting = config(tmp_path, per_channel=("ch00", "ch01", "ch02"))
    found = inspect_data_set(setting, SIZE)
    assert not found.faults
    np.testing.assert_array_equal(
        load_fov(found.data_set.entries[0].file, setting, SIZE), fov(0, dtype="uint8")
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_three_channels_as_rgb_stay_three(tmp_path, suffix):
    image = fov(5, dtype="uint8").transpose(1, 2, 0)
    data = pillow(Image.fromarray(image), "PNG") if suffix == ".png" else tiff(image, photometric="rgb")
    write(tmp_path, {f"control/a{suffix}": data, "senescent/b.tif": tiff(fov(4))})
    np.testing.assert_array_equal(
        load_fov(f"control/a{suffix}", config(tmp_path), SIZE), fov(5, dtype="uint8")
    )
