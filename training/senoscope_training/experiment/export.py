"""Export of an experiment's fully trained or frozen ensemble to a folder that the service loads."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from senoscope.engine.manifest import (
    MANIFEST_NAME,
    Channel,
    ChannelRange,
    Combination,
    Input,
    Manifest,
    NormalizationSpec,
    Training,
)
from senoscope.engine.sessions import usable_cores
from senoscope_training.config import Config
from senoscope_training.dataset.reading import load_fov
from senoscope_training.experiment.export_job import ExportJob, run_export
from senoscope_training.experiment.folder import (
    Experiment,
    ExperimentError,
    Prediction,
    UnitResult,
    frozen_backbone,
    read_experiment,
    read_unit,
    run_folder,
)
from senoscope_training.export.model_card import model_card
from senoscope_training.export.publish import Published, move_into_place, write_test_vector
from senoscope_training.metrics import summarize
from senoscope_training.networks.architectures import ARCHITECTURES, with_architectures
from senoscope_training.versions import software_versions
from senoscope_training.workers.pool import run_jobs
from senoscope_training.workers.progress import Progress, Report, silent
from senoscope_training.workers.tensorflow import start_tensorflow

ExportedSystem = Literal["fully_trained", "frozen"]
_PARITY_FOVS = 4
_MAX_JOBS = 4
_SYNTHETIC = "trained on synthetic fields of view, not for science"
_PAPER = "Sorrentino et al. 2023, Front. Chem. 11:1213981, doi:10.3389/fchem.2023.1213981"


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes
    ----------
    name : str, optional
        Name of the ensemble; default: that of the experiment.
    system : {"fully_trained", "frozen"}
        The system to export.
    fold, run : str, int, optional
        The fold and run to export; default: the first fold, and its run with the lowest mean validation
        loss. The choice does not depend on the test FOVs.
    authors, licence, intended_use : optional
        For the manifest and the model card.
    jobs : int, optional
        Networks to export in parallel; default: by number of cores.
    force : bool
        Replace an existing ensemble of that name, and export networks that predict the same for all FOVs;
        the manifest then contains a warning.
    """

    name: str | None = None
    system: ExportedSystem = "fully_trained"
    fold: str | None = None
    run: int | None = None
    authors: tuple[str, ...] = ()
    licence: str = "not stated"
    intended_use: str = (
        "Research use: classification of cells as senescent or control on the microscope, with the sample "
        "preparation and settings of the data set that the ensemble was trained on. Not for diagnosis."
    )
    jobs: int | None = None
    force: bool = False


def export_experiment(
    directory: Path, models_dir: Path, options: ExportOptions, report: Report = silent
) -> Path:
    """Export one run, compare every network with Keras, and move the ensemble to ``models_dir``.

    Raises
    ------
    ExperimentError
        If the run does not exist or is not finished, if its weights were not kept, or, unless forced, if an
        ensemble of that name exists or a network predicts the same for all FOVs.
    ParityError
        If an exported network deviates from Keras.
    WorkerDied
        If a worker process is killed.
    """
    experiment = read_experiment(directory)
    config = experiment.config
    fold, run, units = _choose(experiment, options)
    name = options.name or config.name
    target = models_dir / name
    if target.exists() and not options.force:
        raise ExperimentError(f"{target} already exists; pass --force to replace it, or another --name")
    comparison = ""
    if config.normalization.fitted_on == "each_split":
        comparison = (
            "trained with normalization.fitted_on: each_split, which is only for comparison: a single field "
            "of view is scaled differently, so the predictions differ from those in the report"
        )
        if not options.force:
            raise ExperimentError(f"not exported: {comparison}. Pass --force to export it nevertheless")
    weights = {unit.network: _weights(experiment, fold, run, unit) for unit in units}
    absent = [path for paths in weights.values() for path in paths if not path.is_file()]
    if absent:
        raise ExperimentError(f"{absent[0]} does not exist: train with keep_weights: all")
    bounds = experiment.provenance["intensity_ranges"][fold]
    low, high = (np.array(bounds[side], np.float32) for side in ("low", "high"))
    sample, truth, vectors = _sample(config, units[0])
    tuned = "fine-tuned from " if options.system == "fully_trained" else ""
    models_dir.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=models_dir))
    try:
        build = temporary / "ensemble"
        build.mkdir()
        report(Progress("networks", detail=f"{directory.name}, {fold}, run {run}"))
        parallel = options.jobs or min(_MAX_JOBS, usable_cores())
        threads = max(1, usable_cores() // parallel)
        jobs = [
            ExportJob(
                name=unit.network,
                weights=weights[unit.network],
                directory=build,
                sample=sample,
                low=low,
                high=high,
                source=f"{tuned}{experiment.provenance['weights']}",
                seed=int(unit.details["seed"]),
                metrics=_metrics(unit),
                threads=threads,
                data=config.data,
                validation=unit.validation,
                truth=truth,
                note=unit.final_note,
            )
            for unit in sorted(units, key=lambda unit: -ARCHITECTURES[unit.network].cost)
        ]
        made = run_jobs(
            run_export, jobs, parallel, with_architectures(partial(start_tensorflow, threads)), report
        )
        published = {job.name: result.published for job, result in zip(jobs, made, strict=True)}
        faults = tuple(sorted(result.fault for result in made if result.fault))
        if faults and not options.force:
            raise ExperimentError(
                f"not exported: {'; '.join(faults)}. Such a network is useless in an ensemble: remove it "
                "from `networks`, choose another --run, or check its training. Pass --force to export it "
                "nevertheless, with a warning in the manifest"
            )
        faults += (comparison,) if comparison else ()
        for fault in faults:
            report(Progress("warning", detail=fault))
        manifest = _manifest(experiment, fold, run, name, options, build, sample, vectors, published, faults)
        (build / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
        (build / "README.md").write_text(model_card(manifest), encoding="utf-8", newline="\n")
        move_into_place(build, target, temporary / "old", options.force)
    except FileExistsError as error:
        raise ExperimentError(str(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    report(Progress("done", detail=f"{target}: load it with senoscope serve --model {name}"))
    return target


def _choose(experiment: Experiment, options: ExportOptions) -> tuple[str, int, list[UnitResult]]:
    config = experiment.config
    folds = list(experiment.provenance["folds"])
    fold = options.fold or folds[0]
    if fold not in folds:
        raise ExperimentError(f"there is no fold {fold!r}; the folds are {', '.join(folds)}")
    candidates = {}
    for run in [options.run] if options.run else range(1, config.runs + 1):
        units = [
            read_unit(experiment.directory, fold, run, f"{options.system}.{network}")
            for network in config.networks
        ]
        if all(units):
            candidates[run] = [unit for unit in units if unit is not None]
    if not candidates:
        wanted = f"run {options.run}" if options.run else "any run"
        raise ExperimentError(
            f"{experiment.directory} has no complete `{options.system}` ensemble in {wanted} of {fold}: "
            "complete it with senoscope-train run"
        )
    run = min(candidates, key=lambda run: float(np.mean([_best_loss(unit) for unit in candidates[run]])))
    return fold, run, candidates[run]


def _weights(experiment: Experiment, fold: str, run: int, unit: UnitResult) -> tuple[Path, ...]:
    """Return the files with a unit's weights, the backbone's first."""
    path = run_folder(experiment.directory, fold, run) / f"{unit.unit}.weights.npz"
    if unit.system != "frozen":
        return (path,)
    candidates = [
        frozen_backbone(experiment.directory, fold, unit.network, random=random) for random in (True, False)
    ]
    backbone = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    return backbone, path


def _best_loss(unit: UnitResult) -> float:
    phases = unit.history["phase"]
    return min(
        loss for loss, phase in zip(unit.history["val_loss"], phases, strict=True) if phase == phases[-1]
    )


def _metrics(unit: UnitResult) -> dict[str, float]:
    correct = (np.array(unit.score) > 0.5) == np.array(unit.truth)
    return {
        "test_accuracy": float(correct.mean()),
        "validation_loss": _best_loss(unit),
        "epochs": float(len(unit.history["loss"])),
    }


def _sample(config: Config, unit: UnitResult) -> tuple[npt.NDArray[Any], tuple[bool, ...], tuple[int, int]]:
    """Load test FOVs of both classes; return them, their truth, and the indices of the test vectors."""
    truth = np.array(unit.truth)
    positive, negative = np.flatnonzero(truth), np.flatnonzero(~truth)
    chosen = [*negative[: _PARITY_FOVS // 2], *positive[: _PARITY_FOVS // 2]]
    stack = [load_fov(config.data.path, unit.files[k], config.data, config.input) for k in chosen]
    return np.stack(stack), tuple(bool(truth[k]) for k in chosen), (0, len(chosen) - 1)


def _manifest(
    experiment: Experiment,
    fold: str,
    run: int,
    name: str,
    options: ExportOptions,
    build: Path,
    sample: npt.NDArray[Any],
    vectors: tuple[int, int],
    published: dict[str, Published],
    faults: tuple[str, ...],
) -> Manifest:
    config, provenance = experiment.config, experiment.provenance
    bounds = provenance["intensity_ranges"][fold]
    chosen = _prediction(experiment, fold, run, options.system)
    return Manifest(
        name=name,
        version=f"{version('senoscope')}+{fold}.run{run}{'.frozen' * (options.system == 'frozen')}",
        created=datetime.now(UTC),
        licence=options.licence,
        intended_use=_SYNTHETIC if provenance["data"].get("synthetic") else options.intended_use,
        for_science=not provenance["data"].get("synthetic"),
        authors=options.authors or ("not stated",),
        cite=(_PAPER,),
        input=Input(
            height=config.input.height,
            width=config.input.width,
            channels=tuple(Channel(name=channel) for channel in config.data.channels),
            pixel_size_um=config.data.pixel_size_um,
        ),
        normalization=NormalizationSpec(
            k_iqr=config.normalization.k_iqr,
            channels=tuple(
                ChannelRange(low=low, high=high, saturated_p99=usual)
                for low, high, usual in zip(
                    bounds["low"],
                    bounds["high"],
                    bounds.get("saturated_p99", [None] * len(bounds["low"])),  # absent in older experiments
                    strict=True,
                )
            ),
            fitted_on=f"{len(provenance['folds'][fold]['train'])} training FOVs of {config.data.path.name}",
        ),
        networks=tuple(published[network].network for network in config.networks),
        ensemble=Combination(classes=config.data.classes),
        training=Training(
            config=config.model_dump(mode="json", exclude={"runs_dir", "weights_dir"}),
            data_sha256=provenance["data"]["sha256"],
            split={"fold": fold, "run": run, "system": options.system, **provenance["folds"][fold]},
            runs=config.runs,
            software=software_versions(),
        ),
        metrics=summarize(chosen.truth, chosen.score),
        warnings=faults,
        test_vectors=tuple(
            write_test_vector(
                build,
                k,
                sample[index],
                {network: published[network].expected[index] for network in config.networks},
            )
            for k, index in enumerate(vectors)
        ),
    )


def _prediction(experiment: Experiment, fold: str, run: int, system: str) -> Prediction:
    return next(p for p in experiment.predictions if (p.fold, p.run, p.system) == (fold, run, system))
