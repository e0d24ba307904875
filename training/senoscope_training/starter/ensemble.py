"""The starter ensemble: the paper's frozen ensemble, trained on synthetic fields of view."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from senoscope.engine.intensity import fit_range, usual_saturation
from senoscope.engine.manifest import (
    MANIFEST_NAME,
    Channel,
    ChannelRange,
    Input,
    Manifest,
    NormalizationSpec,
    Training,
)
from senoscope.starter.recipe import VECTORS_NAME, write_zip
from senoscope_client.simulation.synthetic import CHANNELS, HEIGHT, PIXEL_SIZE_UM, WIDTH
from senoscope_training.export.folder import CITATION, build_ensemble_folder, require_absent
from senoscope_training.export.publish import write_test_vectors
from senoscope_training.networks.settings import FrozenPhase, HeadConfig
from senoscope_training.networks.weights import WeightsOption, plan_weights
from senoscope_training.starter.fovs import synthetic_fovs
from senoscope_training.starter.network_job import NetworkResult, StarterJob, run_job
from senoscope_training.systems import NETWORKS
from senoscope_training.versions import software_versions
from senoscope_training.workers.progress import Progress, Report, silent

_LABEL = "starter, synthetic, not for science"
_VECTORS = (0, 1)  # the first two held-out FOVs, one of each class


@dataclass(frozen=True)
class StarterOptions:
    """Options for building a starter ensemble."""

    name: str = "starter"
    weights: WeightsOption = "auto"
    """See :func:`senoscope_training.networks.weights.plan_weights`."""
    weights_dir: Path | None = None
    seed: int = 0
    """The same seed gives the same data, splits, weights and heads."""
    jobs: int | None = None
    """Networks to build in parallel; default: by number of cores."""
    keras_dir: Path | None = None
    """Folder for Keras' weights and the heads."""
    force: bool = False
    train_fovs: int = 128
    held_out_fovs: int = 48
    batch_norm_fovs: int = 10
    """Number of FOVs for the batch-norm statistics of random backbones."""
    parity_fovs: int = 4
    """Number of FOVs for the comparison with Keras."""


class StarterError(Exception):
    """The options contradict each other; nothing was written."""


def make_starter(models_dir: Path, options: StarterOptions, report: Report = silent) -> Path:
    """Build a starter ensemble in ``models_dir`` and return its folder.

    Raises
    ------
    FileExistsError, WorkerDied
        See :func:`senoscope_training.export.folder.build_ensemble_folder`.
    WeightsError, ParityError, DeadHeadError
        If weights are not available, a network deviates from Keras, or a head is dead after all attempts.
    """
    return _build(models_dir / options.name, options, report, recipe=False)


def make_recipe(target: Path, options: StarterOptions, report: Report = silent) -> Path:
    """Build the recipe of a starter ensemble with random backbones, and return its folder, ``target``.

    The networks are converted from Keras, reduced to the recipe, and rebuilt from it; the rebuilt networks
    are compared with Keras.

    Raises
    ------
    StarterError
        If the options require weights that are not random.
    RecipeError
        If a network cannot be rebuilt from drawn kernels.
    FileExistsError, WorkerDied, ParityError, DeadHeadError
        As for :func:`make_starter`.
    """
    if options.weights == "imagenet" or options.weights_dir is not None:
        raise StarterError("a recipe requires random weights: remove --weights and --weights-dir")
    return _build(target, replace(options, weights="random"), report, recipe=True)


def _build(target: Path, options: StarterOptions, report: Report, *, recipe: bool) -> Path:
    require_absent(target, force=options.force)
    starter = _Starter(options, report, recipe)
    report(Progress("networks", detail=starter.plan.description))
    manifest = build_ensemble_folder(
        target,
        NETWORKS,
        starter.make_jobs,
        run_job,
        starter.describe,
        parallel=options.jobs,
        force=options.force,
        report=report,
        finish=_write_recipe if recipe else lambda folder, _: folder,
    )
    report(
        Progress(
            "done",
            detail=f"{target}: accuracy {manifest.metrics['held_out_accuracy']:.1%} on "
            f"{options.held_out_fovs} held-out synthetic FOVs ({starter.plan.description})",
        )
    )
    return target


def _write_recipe(folder: Path, _: Manifest) -> Path:
    """Add the manifest and test vectors of a finished ensemble to its recipe, and return its folder."""
    recipe = folder.parent / "recipe"
    shutil.copyfile(folder / MANIFEST_NAME, recipe / MANIFEST_NAME)
    vectors = sorted(folder.glob("*.npy"))
    write_zip(recipe / VECTORS_NAME, {path.name: path.read_bytes() for path in vectors})
    return recipe


class _Starter:
    """The data of a starter ensemble."""

    def __init__(self, options: StarterOptions, report: Report, with_recipe: bool) -> None:
        self.options, self.with_recipe = options, with_recipe
        train, held_out = options.train_fovs, options.held_out_fovs
        self.plan = plan_weights(options.weights, options.weights_dir, NETWORKS)
        report(Progress("synthetic FOVs", detail=f"{train} + {held_out} held out"))
        self.train = synthetic_fovs(options.seed, 0, train, HEIGHT, WIDTH)
        self.held_out = synthetic_fovs(options.seed, train, held_out, HEIGHT, WIDTH)
        self.low, self.high = fit_range(self.train.pixels)

    def make_jobs(self, folder: Path, threads: int) -> list[StarterJob]:
        """Write the FOVs and return the jobs."""
        options, data, recipe = self.options, folder.parent / "data", folder.parent / "recipe"
        for other in (data, recipe):
            other.mkdir()
        np.save(data / "train.npy", self.train.pixels)
        np.save(data / "held_out.npy", self.held_out.pixels)
        seeds = np.random.SeedSequence(options.seed).generate_state(len(NETWORKS))
        return [
            StarterJob(
                name=name,
                seed=int(seed % 2**31),
                directory=folder,
                low=self.low,
                high=self.high,
                threads=threads,
                train=data / "train.npy",
                held_out=data / "held_out.npy",
                train_labels=self.train.labels,
                held_out_labels=self.held_out.labels,
                plan=self.plan,
                batch_norm_fovs=options.batch_norm_fovs,
                parity_fovs=options.parity_fovs,
                keras_dir=options.keras_dir,
                recipe_dir=recipe if self.with_recipe else None,
            )
            for name, seed in zip(NETWORKS, seeds, strict=True)
        ]

    def describe(self, folder: Path, results: dict[str, NetworkResult]) -> Manifest:
        """Write the test vectors and return the manifest."""
        options, truth = self.options, self.held_out.labels
        probability = np.mean([result.held_out for result in results.values()], axis=0, dtype=np.float64)
        predicted = np.asarray(probability > 0.5)
        published = {name: result.published for name, result in results.items()}
        return Manifest(
            name=options.name,
            version=f"{version('senoscope')}+seed{options.seed}",
            created=datetime.now(UTC),
            licence="BSD-3-Clause",
            intended_use=f"{_LABEL}: for demonstrations and tests of the software. "
            "Its heads were trained on synthetic fields of view and say nothing about cells.",
            for_science=False,
            authors=("The Senoscope developers",),
            cite=(CITATION,),
            input=Input(
                height=HEIGHT,
                width=WIDTH,
                channels=tuple(Channel(name=name) for name in CHANNELS),
                pixel_size_um=PIXEL_SIZE_UM,
            ),
            normalization=NormalizationSpec(
                channels=tuple(
                    ChannelRange(low=float(a), high=float(b), saturated_p99=float(usual))
                    for a, b, usual in zip(
                        self.low, self.high, usual_saturation(self.train.pixels, self.high), strict=True
                    )
                ),
                fitted_on=f"{options.train_fovs} synthetic training FOVs",
            ),
            networks=tuple(one.network for one in published.values()),
            training=Training(
                config={
                    "procedure": "frozen backbones, heads trained on pooled features",
                    "weights": self.plan.description,
                    "seed": options.seed,
                    "batch_norm_fovs": options.batch_norm_fovs if self.plan.random else 0,
                    "augmentation": "none: each FOV is synthesised anew",
                    "head": HeadConfig().model_dump(),
                    "phase1": FrozenPhase().model_dump(),
                },
                data_sha256=self.train.sha256(),
                split={
                    "train_fovs": options.train_fovs,
                    "held_out_fovs": options.held_out_fovs,
                    "validation": {name: result.validation for name, result in results.items()},
                },
                runs=1,
                software=software_versions(),
            ),
            metrics={
                "held_out_accuracy": float((predicted == truth).mean()),
                "held_out_sensitivity": float(predicted[truth].mean()),
                "held_out_specificity": float((~predicted[~truth]).mean()),
                "held_out_fovs": float(options.held_out_fovs),
            },
            test_vectors=write_test_vectors(folder, self.held_out.pixels, _VECTORS, published),
        )
