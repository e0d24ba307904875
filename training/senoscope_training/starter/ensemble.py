"""The starter ensemble: the paper's frozen ensemble, trained on synthetic fields of view."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
from senoscope.engine.sessions import usable_cores
from senoscope.starter.recipe import VECTORS_NAME, write_zip
from senoscope_client.simulation.synthetic import CHANNELS, HEIGHT, PIXEL_SIZE_UM, WIDTH
from senoscope_training.export.publish import move_into_place, write_test_vector
from senoscope_training.networks.architectures import ARCHITECTURES, with_architectures
from senoscope_training.networks.settings import FrozenPhase, HeadConfig
from senoscope_training.networks.weights import WeightsOption, WeightsPlan, plan_weights
from senoscope_training.starter.fovs import LabelledFovs, synthetic_fovs
from senoscope_training.starter.network_job import NetworkJob, NetworkResult, run_job
from senoscope_training.systems import NETWORKS
from senoscope_training.versions import software_versions
from senoscope_training.workers.pool import run_jobs
from senoscope_training.workers.progress import Progress, Report, silent
from senoscope_training.workers.tensorflow import start_tensorflow

_LABEL = "starter, synthetic, not for science"
_MAX_JOBS = 4  # a job takes up to 4 GB of memory


@dataclass(frozen=True)
class StarterOptions:
    """Options for building a starter ensemble.

    Attributes
    ----------
    weights, weights_dir
        See :func:`senoscope_training.networks.weights.plan_weights`.
    seed : int
        The same seed gives the same data, splits, weights and heads.
    jobs : int, optional
        Networks to build in parallel, each in its own process; default: by number of cores, at most four.
    keras_dir : Path, optional
        Folder for Keras' weights and the heads.
    force : bool
        Replace an existing ensemble of that name.
    train_fovs, held_out_fovs, batch_norm_fovs, parity_fovs : int
        Numbers of synthetic FOVs for training, for testing, for batch-norm statistics of random backbones,
        and for the comparison with Keras.
    """

    name: str = "starter"
    weights: WeightsOption = "auto"
    weights_dir: Path | None = None
    seed: int = 0
    jobs: int | None = None
    keras_dir: Path | None = None
    force: bool = False
    train_fovs: int = 128
    held_out_fovs: int = 48
    batch_norm_fovs: int = 10
    parity_fovs: int = 4


class StarterError(Exception):
    """The ensemble could not be built; nothing was written."""


def make_starter(models_dir: Path, options: StarterOptions, report: Report = silent) -> Path:
    """Build a starter ensemble in ``models_dir`` and return its folder.

    The ensemble is built in a temporary folder that is renamed at the end. Therefore it is either complete
    or does not exist, even after an interruption, or if another process builds it at the same time.

    Raises
    ------
    StarterError
        If the ensemble exists (without ``force``).
    WorkerDied
        If a worker process is killed.
    WeightsError
        If weights are not available or invalid.
    ParityError
        If an exported network deviates from Keras.
    DeadHeadError
        If a head is dead after all attempts.
    """
    target = models_dir / options.name
    if target.exists() and not options.force:
        raise StarterError(f"{target} already exists; pass --force to replace it")
    return _build(target, options, report, lambda build: build)


def make_recipe(target: Path, options: StarterOptions, report: Report = silent) -> Path:
    """Build the recipe of a starter ensemble with random backbones, and return its folder, ``target``.

    The networks are converted from Keras, reduced to the recipe, and rebuilt from it; the rebuilt networks
    are compared with Keras.

    Raises
    ------
    StarterError
        If ``target`` exists (without ``force``), or if the options require weights that are not random.
    RecipeError
        If a network cannot be rebuilt from drawn kernels.
    WorkerDied, ParityError, DeadHeadError
        As for :func:`make_starter`.
    """
    if target.exists() and not options.force:
        raise StarterError(f"{target} already exists; pass --force to replace it")
    if options.weights == "imagenet" or options.weights_dir is not None:
        raise StarterError("a recipe requires random weights: remove --weights and --weights-dir")
    return _build(target, replace(options, weights="random"), report, _write_recipe)


def _write_recipe(build: Path) -> Path:
    """Add the manifest and test vectors of a finished ensemble to its recipe, and return its folder."""
    recipe = build.parent / "recipe"
    shutil.copyfile(build / MANIFEST_NAME, recipe / MANIFEST_NAME)
    vectors = sorted(build.glob("*.npy"))
    write_zip(recipe / VECTORS_NAME, {path.name: path.read_bytes() for path in vectors})
    return recipe


def _build(target: Path, options: StarterOptions, report: Report, finish: Callable[[Path], Path]) -> Path:
    """Build an ensemble in a temporary folder, and move the folder that ``finish`` returns to ``target``."""
    with_recipe = finish is _write_recipe
    plan = plan_weights(options.weights, options.weights_dir, NETWORKS)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        build, data = temporary / "ensemble", temporary / "data"
        recipe = temporary / "recipe" if with_recipe else None
        for folder in (build, data, recipe):
            if folder is not None:
                folder.mkdir()
        report(Progress("synthetic FOVs", detail=f"{options.train_fovs} + {options.held_out_fovs} held out"))
        train = synthetic_fovs(options.seed, 0, options.train_fovs, HEIGHT, WIDTH)
        held_out = synthetic_fovs(options.seed, options.train_fovs, options.held_out_fovs, HEIGHT, WIDTH)
        low, high = fit_range(train.pixels)
        np.save(data / "train.npy", train.pixels)
        np.save(data / "held_out.npy", held_out.pixels)
        report(Progress("networks", detail=plan.description))
        jobs = _plan_jobs(build, data, train, held_out, low, high, plan, options, recipe)
        start = partial(start_tensorflow, jobs[0].threads)
        made = run_jobs(run_job, jobs, _parallel_jobs(options), with_architectures(start), report)
        results = {job.name: result for job, result in zip(jobs, made, strict=True)}
        report(Progress("manifest"))
        manifest = _manifest(build, train, held_out, low, high, plan, options, results)
        (build / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
        move_into_place(finish(build), target, temporary / "old", options.force)
    except FileExistsError as error:
        raise StarterError(str(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    report(
        Progress(
            "done",
            detail=f"{target}: accuracy {manifest.metrics['held_out_accuracy']:.1%} on "
            f"{options.held_out_fovs} held-out synthetic FOVs ({plan.description})",
        )
    )
    return target


def _plan_jobs(
    build: Path,
    data: Path,
    train: LabelledFovs,
    held_out: LabelledFovs,
    low: npt.NDArray[np.float32],
    high: npt.NDArray[np.float32],
    plan: WeightsPlan,
    options: StarterOptions,
    recipe_dir: Path | None,
) -> list[NetworkJob]:
    cores = usable_cores()
    parallel = _parallel_jobs(options)
    names = list(NETWORKS)
    seeds = np.random.SeedSequence(options.seed).generate_state(len(names))
    return [
        NetworkJob(
            name=name,
            seed=int(seeds[names.index(name)] % 2**31),
            directory=build,
            train=data / "train.npy",
            held_out=data / "held_out.npy",
            train_labels=train.labels,
            held_out_labels=held_out.labels,
            low=low,
            high=high,
            plan=plan,
            batch_norm_fovs=options.batch_norm_fovs,
            parity_fovs=options.parity_fovs,
            vectors=_vectors(),
            threads=max(1, cores // parallel),
            keras_dir=options.keras_dir,
            recipe_dir=recipe_dir,
        )
        for name in sorted(names, key=lambda name: -ARCHITECTURES[name].cost)
    ]


def _parallel_jobs(options: StarterOptions) -> int:
    return options.jobs or min(_MAX_JOBS, usable_cores(), len(NETWORKS))


def _vectors() -> tuple[int, ...]:
    return (0, 1)  # the first two held-out FOVs, one of each class


def _manifest(
    build: Path,
    train: LabelledFovs,
    held_out: LabelledFovs,
    low: npt.NDArray[np.float32],
    high: npt.NDArray[np.float32],
    plan: WeightsPlan,
    options: StarterOptions,
    results: dict[str, NetworkResult],
) -> Manifest:
    probability = np.mean([results[name].held_out for name in NETWORKS], axis=0, dtype=np.float64)
    predicted = np.asarray(probability > 0.5)
    vectors = [
        write_test_vector(
            build,
            k,
            held_out.pixels[index],
            {name: results[name].expected[k] for name in NETWORKS},
        )
        for k, index in enumerate(_vectors())
    ]
    return Manifest(
        name=options.name,
        version=f"{version('senoscope')}+seed{options.seed}",
        created=datetime.now(UTC),
        licence="BSD-3-Clause",
        intended_use=f"{_LABEL}: for demonstrations and tests of the software. "
        "Its heads were trained on synthetic fields of view and say nothing about cells.",
        for_science=False,
        authors=("The Senoscope developers",),
        cite=("Sorrentino et al. 2023, Front. Chem. 11:1213981, doi:10.3389/fchem.2023.1213981",),
        input=Input(
            height=HEIGHT,
            width=WIDTH,
            channels=tuple(Channel(name=name) for name in CHANNELS),
            pixel_size_um=PIXEL_SIZE_UM,
        ),
        normalization=NormalizationSpec(
            channels=tuple(
                ChannelRange(low=float(a), high=float(b), saturated_p99=float(usual))
                for a, b, usual in zip(low, high, usual_saturation(train.pixels, high), strict=True)
            ),
            fitted_on=f"{options.train_fovs} synthetic training FOVs",
        ),
        networks=tuple(results[name].network for name in NETWORKS),
        training=Training(
            config={
                "procedure": "frozen backbones, heads trained on pooled features",
                "weights": plan.description,
                "seed": options.seed,
                "batch_norm_fovs": options.batch_norm_fovs if plan.random else 0,
                "augmentation": "none: each FOV is synthesised anew",
                "head": HeadConfig().model_dump(),
                "phase1": FrozenPhase().model_dump(),
            },
            data_sha256=train.sha256(),
            split={
                "train_fovs": options.train_fovs,
                "held_out_fovs": options.held_out_fovs,
                "validation": {name: results[name].validation for name in NETWORKS},
            },
            runs=1,
            software=software_versions(),
        ),
        metrics={
            "held_out_accuracy": float((predicted == held_out.labels).mean()),
            "held_out_sensitivity": float(predicted[held_out.labels].mean()),
            "held_out_specificity": float((~predicted[~held_out.labels]).mean()),
            "held_out_fovs": float(options.held_out_fovs),
        },
        test_vectors=tuple(vectors),
    )
