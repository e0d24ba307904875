"""Export of an experiment's fully trained or frozen ensemble to a folder that the service loads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from senoscope.engine.manifest import (
    BackboneWeights,
    Channel,
    ChannelRange,
    Combination,
    Input,
    Manifest,
    NormalizationSpec,
    Training,
    sha256_of,
)
from senoscope.engine.precision import FilePrecision
from senoscope_training.dataset.reading import load_fov
from senoscope_training.experiment.export_job import ExportJob, ExportResult, run_export
from senoscope_training.experiment.folder import (
    Experiment,
    ExperimentError,
    RangeRecord,
    UnitResult,
    frozen_backbone,
    read_experiment,
    read_unit,
    run_folder,
)
from senoscope_training.export.folder import CITATION, build_ensemble_folder, require_absent
from senoscope_training.export.model_card import model_card
from senoscope_training.export.publish import write_test_vectors
from senoscope_training.metrics import summarize
from senoscope_training.variants.card import CARD_NAME
from senoscope_training.variants.fovs import CALIBRATION, COUNT, REFERENCE, VariantFovs, evenly_chosen
from senoscope_training.variants.int8 import require_nncf
from senoscope_training.variants.write import VariantOptions, write_variants
from senoscope_training.versions import software_versions
from senoscope_training.workers.progress import Progress, Report, silent

_PARITY_FOVS = 4
_SYNTHETIC = "trained on synthetic fields of view, not for science"


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export."""

    name: str | None = None
    """Default: the name of the experiment."""
    system: Literal["fully_trained", "frozen"] = "fully_trained"
    fold: str | None = None
    """Default: the first."""
    run: int | None = None
    """Default: the run with the lowest mean validation loss; the choice does not depend on the test FOVs."""
    authors: tuple[str, ...] = ()
    licence: str = "not stated"
    intended_use: str = (
        "Research use: classification of cells as senescent or control on the microscope, with the sample "
        "preparation and settings of the data set that the ensemble was trained on. Not for diagnosis."
    )
    jobs: int | None = None
    """Networks to export in parallel; default: by number of cores."""
    variants: tuple[FilePrecision, ...] = ()
    """Precisions of further variants, in addition to fp32."""
    force: bool = False
    """Replace an existing ensemble, and export useless networks; the manifest then contains a warning."""


def export_experiment(
    directory: Path, models_dir: Path, options: ExportOptions, report: Report = silent
) -> Path:
    """Export one run, compare every network with Keras, and move the ensemble to ``models_dir``.

    Raises
    ------
    ExperimentError
        If the run does not exist or is not finished, if its weights were not kept, or, unless forced, if a
        network predicts the same for all FOVs.
    FileExistsError, WorkerDied
        See :func:`senoscope_training.export.folder.build_ensemble_folder`.
    ParityError
        If an exported network deviates from Keras.
    VariantError
        If variants cannot be made.
    """
    export = _Export(read_experiment(directory), models_dir, options, report)
    report(Progress("networks", detail=f"{directory.name}, {export.fold}, run {export.run}"))
    build_ensemble_folder(
        export.target,
        export.experiment.config.networks,
        export.make_jobs,
        run_export,
        export.describe,
        parallel=options.jobs,
        force=options.force,
        report=report,
        finish=export.finish,
    )
    done = f"{export.target}: load it with senoscope serve --model {export.name}"
    report(Progress("done", detail=done))
    return export.target


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


def _choose_sample(unit: UnitResult) -> list[int]:
    """Return indices of test FOVs for the comparison with Keras, first negative and then positive ones."""
    truth = np.array(unit.truth)
    half = _PARITY_FOVS // 2
    return [*np.flatnonzero(~truth)[:half].tolist(), *np.flatnonzero(truth)[:half].tolist()]


class _Export:
    """The run to export; ``sample`` and ``truth`` are test FOVs of both classes."""

    def __init__(
        self, experiment: Experiment, models_dir: Path, options: ExportOptions, report: Report
    ) -> None:
        self.experiment, self.options, self.report = experiment, options, report
        config = experiment.config
        self.name = options.name or config.name
        self.target = models_dir / self.name
        require_absent(self.target, force=options.force)
        if "int8" in options.variants:
            require_nncf()
        self.fold, self.run, self.units = _choose(experiment, options)
        self.comparison = ""
        if config.normalization.fitted_on == "each_split":
            self.comparison = (
                "trained with normalization.fitted_on: each_split, which is only for comparison: a single "
                "field of view is scaled differently, so the predictions differ from those in the report"
            )
            if not options.force:
                raise ExperimentError(
                    f"not exported: {self.comparison}. Pass --force to export it nevertheless"
                )
        self.weights = {unit.network: _weights(experiment, self.fold, self.run, unit) for unit in self.units}
        absent = [path for paths in self.weights.values() for path in paths if not path.is_file()]
        if absent:
            raise ExperimentError(f"{absent[0]} does not exist: train with keep_weights: all")
        tested = self.units[0]
        chosen = _choose_sample(tested)
        self.sample = np.stack([load_fov(tested.files[k], config.data, config.input) for k in chosen])
        self.truth = tuple(tested.truth[k] for k in chosen)
        self.bounds: RangeRecord = experiment.provenance["intensity_ranges"][self.fold]

    def make_jobs(self, folder: Path, threads: int) -> list[ExportJob]:
        """Return the jobs."""
        low, high = (np.array(side, np.float32) for side in (self.bounds["low"], self.bounds["high"]))
        tuned = "fine-tuned from " if self.options.system == "fully_trained" else ""
        source = f"{tuned}{self.experiment.provenance['weights']}"
        return [
            ExportJob(
                name=unit.network,
                seed=int(unit.details["seed"]),
                directory=folder,
                low=low,
                high=high,
                threads=threads,
                files=self.weights[unit.network],
                weights=BackboneWeights(source=source, sha256=sha256_of(self.weights[unit.network][0])),
                metrics=_metrics(unit),
                sample=self.sample,
                truth=self.truth,
                data=self.experiment.config.data,
                validation=unit.validation,
                note=unit.final_note,
            )
            for unit in self.units
        ]

    def finish(self, folder: Path, manifest: Manifest) -> Path:
        """Write the model card, reference FOVs and variants into the finished folder, and return it."""
        (folder / CARD_NAME).write_text(model_card(manifest), encoding="utf-8", newline="\n")
        options = VariantOptions(self.options.variants, jobs=self.options.jobs)
        write_variants(folder, self._fovs(), options, self.report)
        return folder

    def _fovs(self) -> VariantFovs:
        """Return test FOVs to measure variants on, and training FOVs for their calibration."""
        config, tested = self.experiment.config, self.units[0]
        trained = [entry["file"] for entry in self.experiment.provenance["folds"][self.fold]["train"]]
        calibration = evenly_chosen([False] * len(trained), CALIBRATION) if self.options.variants else []
        measured = evenly_chosen(tested.truth, COUNT if self.options.variants else REFERENCE)
        return VariantFovs(
            np.stack([load_fov(tested.files[k], config.data, config.input) for k in measured]),
            np.array([load_fov(trained[k], config.data, config.input) for k in calibration]),
            np.array(tested.truth, np.bool_)[measured],
            f"{len(measured)} test fields of view of {config.data.path.name}",
        )

    def describe(self, folder: Path, results: dict[str, ExportResult]) -> Manifest:
        """Write the test vectors and return the manifest.

        Raises
        ------
        ExperimentError
            If a network should not be used, unless forced.
        """
        faults = tuple(sorted(result.fault for result in results.values() if result.fault))
        options = self.options
        if faults and not options.force:
            raise ExperimentError(
                f"not exported: {'; '.join(faults)}. Such a network is useless in an ensemble: remove it "
                "from `networks`, choose another --run, or check its training. Pass --force to export it "
                "nevertheless, with a warning in the manifest"
            )
        faults += (self.comparison,) if self.comparison else ()
        for fault in faults:
            self.report(Progress("warning", detail=fault))
        config, provenance = self.experiment.config, self.experiment.provenance
        bounds, fold = self.bounds, provenance["folds"][self.fold]
        saturated = bounds.get("saturated_p99", [None] * len(bounds["low"]))  # absent in older experiments
        negative, positive = config.data.classes
        published = {name: result.published for name, result in results.items()}
        key = (self.fold, self.run, options.system)
        chosen = next(p for p in self.experiment.predictions if (p.fold, p.run, p.system) == key)
        suffix = ".frozen" if options.system == "frozen" else ""
        return Manifest(
            name=self.name,
            version=f"{version('senoscope')}+{self.fold}.run{self.run}{suffix}",
            created=datetime.now(UTC),
            licence=options.licence,
            intended_use=_SYNTHETIC if self.experiment.synthetic else options.intended_use,
            for_science=not self.experiment.synthetic,
            authors=options.authors or ("not stated",),
            cite=(CITATION,),
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
                    for low, high, usual in zip(bounds["low"], bounds["high"], saturated, strict=True)
                ),
                fitted_on=f"{len(fold['train'])} training FOVs of {config.data.path.name}",
            ),
            networks=tuple(one.network for one in published.values()),
            ensemble=Combination(classes=(negative, positive)),
            training=Training(
                config=config.model_dump(mode="json", exclude={"runs_dir", "weights_dir"}),
                data_sha256=provenance["data"]["sha256"],
                split={"fold": self.fold, "run": self.run, "system": options.system, **fold},
                runs=config.runs,
                software=software_versions(),
            ),
            metrics=summarize(chosen.truth, chosen.score),
            warnings=faults,
            # One FOV of each class: the first and the last.
            test_vectors=write_test_vectors(folder, self.sample, (0, len(self.sample) - 1), published),
        )
