"""Recorded fields of view as a source for the simulated microscope."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from senoscope_client.errors import SenoscopeError
from senoscope_client.replay import Replay
from senoscope_client.wire import Index


@pytest.fixture
def folder(tmp_path):
    """Two NPY stacks of one and two FOVs, each FOV of one value, and a file of another kind."""
    np.save(tmp_path / "b.npy", np.stack([np.full((3, 250, 300), n, np.uint16) for n in (2, 3)]))
    np.save(tmp_path / "a.npy", np.full((3, 250, 300), 1, np.uint16))
    (tmp_path / "notes.txt").write_text("not pixels")
    return tmp_path


def values(frames):
    return [(int(f.pixels[0, 0, 0]), f.index) for f in frames]


def test_a_folder_is_sent_in_the_order_of_its_names(folder):
    replay = Replay([folder])
    assert values(replay) == [(1, Index(p=0)), (2, Index(p=1)), (3, Index(p=2))]
    assert values(replay) == values(Replay([folder / "a.npy", folder / "b.npy"]))
    assert replay.planned_frames is None


def test_so_many_frames_are_sent_and_no_more(folder):
    assert len(values(Replay([folder], frames=2))) == 2
    assert len(values(Replay([folder], frames=9))) == 3


def test_a_loop_makes_each_pass_a_time_point(folder):
    endless = Replay([folder], loop=True)
    assert values(islice(endless, 5))[3:] == [(1, Index(p=0, t=1)), (2, Index(p=1, t=1))]
    counted = Replay([folder], loop=True, frames=7)
    assert counted.planned_frames == len(values(counted)) == 7


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.tif"):
        Replay([tmp_path / "missing.tif"])
    with pytest.raises(FileNotFoundError, match="holds no"):
        Replay([tmp_path])


def test_fovs_of_another_size_are_refused(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((3, 10, 10), np.uint16))
    with pytest.raises(SenoscopeError):
        list(Replay([tmp_path]))
