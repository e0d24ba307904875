"""The images of a fold in a worker process: batch-norm statistics of its backbone, and scaling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from senoscope.engine.intensity import fit_range
from senoscope_training.config import Config
from senoscope_training.experiment import job_images, job_network
from senoscope_training.experiment.job_images import JobImages
from senoscope_training.experiment.job_network import JobNetwork
from senoscope_training.experiment.plan import FoldData, TrainingJob, class_balanced, draw_run
from senoscope_training.networks.augmentation import plan_copies
from senoscope_training.networks.images import augmented_range, scale_to_images
from senoscope_training.networks.weights import WeightsPlan

SIZE = 32
COUNT = 36
LABELS = np.arange(COUNT) % 3 == 0
DONORS = np.arange(COUNT) // 12
RANDOM = WeightsPlan({})


@pytest.fixture(autouse=True)
def _quiet(tensorflow, monkeypatch):
    monkeypatch.setattr(job_network, "report_progress", lambda progress: None)


def pixels() -> np.ndarray:
    """Draw FOVs whose brightness, and so their statistics, differ between donors."""
    noise = np.random.default_rng(0).integers(20, 400, (COUNT, 3, SIZE, SIZE))
    return (noise * (1 + DONORS)[:, None, None, None]).astype(np.uint16)


class Parts(NamedTuple):
    job: TrainingJob
    images: JobImages
    network: JobNetwork


def parts(tmp_path, stack: np.ndarray, **changes) -> Parts:
    config = Config.model_validate(
        {
            "name": "job",
            "data": {"path": tmp_path},
            "input": {"height": SIZE, "width": SIZE},
            "networks": ["tiny"],
            "systems": ["frozen"],
            "runs_dir": tmp_path,
            "augmentation": {"copies": 2},
        }
        | changes
    )
    path = tmp_path / "pixels.npy"
    np.save(path, stack)
    folds = []
    for donor in range(3):
        train, test = np.flatnonzero(donor != DONORS), np.flatnonzero(donor == DONORS)
        low, high = fit_range(stack[train])
        folds.append(FoldData(f"donor_{donor}", train, test, low, high))
    files = tuple(f"{n}.tif" for n in range(COUNT))
    groups = tuple(f"donor {donor}" for donor in DONORS)
    job = TrainingJob("tiny", config, RANDOM, path, LABELS, groups, files, tuple(folds), 1)
    images = JobImages(job)
    return Parts(job, images, JobNetwork(job, images))


def statistics(one: Parts, fold: int) -> list[np.ndarray]:
    return one.network.open(one.job.folds[fold]).backbone.get_weights()


def differ(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_backbone_does_not_depend_on_images_of_the_tested_donor(tmp_path):
    original, spoiled = pixels(), pixels()
    spoiled[DONORS == 2] = 60_000
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    clean, other = parts(tmp_path / "a", original), parts(tmp_path / "b", spoiled)
    assert not differ(statistics(clean, 2), statistics(other, 2))
    assert differ(statistics(clean, 0), statistics(other, 0)), "it depends on the donors that are trained on"


def test_backbones_do_not_depend_on_the_order_of_folds(tmp_path):
    one = parts(tmp_path, pixels())
    first = [statistics(one, fold) for fold in (0, 1, 2)]
    again = [statistics(one, fold) for fold in (2, 1, 0)][::-1]
    alone = statistics(parts(tmp_path, pixels()), 1)
    for a, b in zip(first, again, strict=True):
        assert not differ(a, b)
    assert not differ(first[1], alone)
    assert differ(first[0], first[1])


def test_the_frozen_backbone_is_exported_for_each_fold(tmp_path, monkeypatch):
    one = parts(tmp_path, pixels())
    made = []
    monkeypatch.setattr(job_network, "_MIN_PIXELS_FOR_ONNX", 0)
    monkeypatch.setattr(job_network, "onnx_extractor", lambda *of: made.append(of) or (lambda images: images))
    for fold in (0, 0, 1):
        one.network.open(one.job.folds[fold])
        one.network.extractor(one.job.folds[fold])
    assert len(made) == 2


def test_statistics_are_of_training_fovs_of_both_classes(tmp_path, monkeypatch):
    one = parts(tmp_path, pixels())
    scaled = []
    monkeypatch.setattr(
        job_images,
        "scale_to_images",
        lambda raw, low, high: scaled.append((raw, low)) or scale_to_images(raw, low, high),
    )
    for fold in one.job.folds:
        one.images.statistics_sample(fold)
    for (raw, low), fold in zip(scaled, one.job.folds, strict=True):
        chosen = [int(np.flatnonzero((pixels() == fov).all(axis=(1, 2, 3)))[0]) for fov in raw]
        assert LABELS[chosen].sum() == 5
        assert set(chosen) <= set(fold.train.tolist())
        np.testing.assert_array_equal(low, fold.low)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"), [(20, 20, 5), (2, 20, 2), (20, 2, 8), (3, 3, 3), (0, 20, 0)]
)
def test_more_fovs_of_the_other_class_are_drawn_if_a_class_is_small(positives, negatives, expected):
    labels = np.arange(positives + negatives) < positives
    drawn = class_balanced(np.arange(len(labels)), labels, 10, seed=1)
    assert len(drawn) == len(set(drawn.tolist())) == min(10, len(labels))
    assert labels[drawn].sum() == expected
    assert drawn.tolist() == sorted(drawn.tolist())
    other = class_balanced(np.arange(len(labels)), labels, 10, seed=2)
    assert len(labels) <= 10 or drawn.tolist() != other.tolist()


def test_each_split_augments_counts_and_fits_the_range_to_the_result(tmp_path):
    """As in the authors' code, the zeros in the corners of copies are included and change the range."""
    stack = pixels() + 500
    one = parts(tmp_path, stack, normalization={"fitted_on": "each_split"})
    run = draw_run(one.job, one.job.folds[0], 1, SIZE, SIZE)
    train, held, test = one.images.for_run(run, None, lambda images: images)
    for examples, indices, copies in (
        (train, run.train, run.train_copies),
        (held, run.held, run.held_copies),
    ):
        rendered = copies.render(stack[indices].transpose(0, 2, 3, 1), np.arange(len(copies)))
        assert (rendered[len(indices) :] == 0).any()
        low, high = fit_range(rendered.transpose(0, 3, 1, 2))
        expected = scale_to_images(rendered.transpose(0, 3, 1, 2), low, high)
        np.testing.assert_array_equal(examples.scaled(np.arange(len(examples))), expected)
        bare_low, _ = fit_range(stack[indices])
        assert low[0] != bare_low[0]
    low, high = fit_range(stack[run.fold.test])
    np.testing.assert_array_equal(test, scale_to_images(stack[run.fold.test], low, high))


def test_padded_pixels_are_excluded_from_an_augmented_range():
    stack = np.zeros((6, 40, 40, 2), np.uint16)
    stack[:, 15:25, 15:25] = np.random.default_rng(0).integers(300, 900, (6, 10, 10, 2))
    from senoscope_training.networks.settings import AugmentationConfig

    copies = plan_copies(np.arange(6) < 3, 40, 40, AugmentationConfig(copies=3), seed=0)
    low, high = augmented_range(stack, copies, 3.5, padded=True)
    assert (high > 800).all()
    assert (low < high).all()
    counted, _ = augmented_range(stack, copies, 3.5, padded=False)
    assert (counted == 0).all()
