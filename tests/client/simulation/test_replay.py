"""Recorded fields of view as a source of the simulated microscope."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import tifffile
import zmq

from senoscope_client.errors import SenoscopeError
from senoscope_client.simulation.microscope import run
from senoscope_client.simulation.replay import Replay
from senoscope_client.wire.messages import Index, Position, decode
from senoscope_client.zeromq.frame_publisher import FramePublisher


@pytest.fixture
def folder(tmp_path):
    """Create two NPY stacks of one and two FOVs, each FOV of one value, and a file of another kind."""
    np.save(tmp_path / "b.npy", np.stack([np.full((3, 250, 300), n, np.uint16) for n in (2, 3)]))
    np.save(tmp_path / "a.npy", np.full((3, 250, 300), 1, np.uint16))
    (tmp_path / "notes.txt").write_text("not pixels")
    return tmp_path


def values(frames):
    return [(int(f.pixels[0, 0, 0]), f.index) for f in frames]


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names(folder):
    replay = Replay([folder])
    assert values(replay) == [(1, Index(p=0)), (2, Index(p=1)), (3, Index(p=2))]
    assert values(replay) == values(Replay([folder / "a.npy", folder / "b.npy"]))
    assert replay.planned_frames is None


def test_the_number_of_frames_is_limited(folder):
    assert len(values(Replay([folder], frames=2))) == 2
    assert len(values(Replay([folder], frames=9))) == 3


def test_each_pass_of_a_loop_is_a_time_point(folder):
    endless = Replay([folder], loop=True)
    assert values(islice(endless, 5))[3:] == [(1, Index(p=0, t=1)), (2, Index(p=1, t=1))]
    counted = Replay([folder], loop=True, frames=7)
    assert counted.planned_frames == len(values(counted)) == 7


def test_missing_files_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.tif"):
        Replay([tmp_path / "missing.tif"])
    with pytest.raises(FileNotFoundError, match="holds no"):
        Replay([tmp_path])


def test_fovs_of_another_size_are_rejected(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((3, 10, 10), np.uint16))
    with pytest.raises(SenoscopeError):
        list(Replay([tmp_path]))


def positions(frames):
    return [
        (f.position_um and (f.position_um.x, f.position_um.y, f.position_um.z), f.pixel_size_um)
        for f in frames
    ]


@pytest.mark.parametrize("axes", ["TCYX", "ZCYX"])
def test_positions_and_pixel_sizes_are_read_from_ome_xml(tmp_path, axes):
    stack = np.stack([np.full((3, 250, 300), n, np.uint16) for n in range(4)])
    metadata = {
        "axes": axes,
        "Channel": {"Name": ["TPEF", "SRS", "Transmission"]},
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "Plane": {
            "PositionX": [0.1 * (n // 3) for n in range(12)],
            "PositionXUnit": ["mm"] * 12,
            "PositionY": [2.0] * 12,
            "PositionYUnit": ["µm"] * 12,
        },
    }
    stack[:, 1] += 100  # SRS
    tifffile.imwrite(tmp_path / "scan.ome.tif", stack, metadata=metadata, photometric="minisblack")
    frames = list(Replay([tmp_path]))
    assert positions(frames) == [((pytest.approx(100 * n), 2, 0), 0.25) for n in range(4)]
    assert values(frames) == [(100 + n, Index(p=n)) for n in range(4)]


def test_several_images_of_a_file_are_read_in_order(tmp_path):
    with tifffile.TiffWriter(tmp_path / "plate.ome.tif", ome=True) as writer:
        for n in range(3):
            metadata = {
                "axes": "CYX",
                "Channel": {"Name": ["SRS", "TPEF", "Transmission", "Grad-CAM"]},
                "PhysicalSizeX": 0.5,
                "Plane": {
                    f"Position{a}{u}": [v] * 4
                    for a, value in (("X", 10.0 * n), ("Y", 0.0), ("Z", -3.0))
                    for u, v in (("", value), ("Unit", "µm"))
                },
            }
            pixels = np.full((4, 250, 300), n, np.uint8)
            writer.write(pixels, photometric="minisblack", metadata=metadata)
    frames = list(Replay([tmp_path]))
    assert positions(frames) == [((10.0 * n, 0, -3), 0.5) for n in range(3)]
    assert [f.pixels.shape for f in frames] == [(3, 250, 300)] * 3
    assert values(frames) == [(n, Index(p=n)) for n in range(3)]


def test_positions_without_a_unit_of_length_are_unknown(tmp_path):
    metadata = {
        "axes": "CYX",
        "Plane": {"PositionX": [1.0] * 3, "PositionY": [2.0] * 3},
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "pixel",
    }
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.zeros((3, 250, 300), np.uint8), metadata=metadata, photometric="minisblack"
    )
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((3, 250, 300), np.uint8), photometric="minisblack")
    assert positions(Replay([tmp_path])) == [(None, None)] * 2


def test_a_truncated_file_is_reported(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((2, 3, 250, 300), np.uint8), metadata={"axes": "TCYX"})
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(SenoscopeError, match=r"a\.ome\.tif"):
        list(Replay([path]))


def test_positions_and_pixel_sizes_are_published(tmp_path):
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 0.7,
        "Plane": {f"Position{a}{u}": [v] * 3 for a in "XY" for u, v in (("", 5.0), ("Unit", "µm"))},
    }
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.zeros((3, 250, 300), np.uint8), metadata=metadata, photometric="minisblack"
    )
    context = zmq.Context()
    with FramePublisher("tcp://127.0.0.1:*", "nlo-1") as publisher, context.socket(zmq.SUB) as subscriber:
        subscriber.subscribe("fov/nlo-1/image")
        subscriber.connect(publisher.endpoint)
        assert publisher.wait_for_subscriber(60)
        run(publisher, Replay([tmp_path]), 100)
        header = decode(subscriber.recv_multipart()).header
    context.term()
    assert (header.pixel_size_um, header.position_um) == (0.7, Position(x=5, y=5, z=0))
