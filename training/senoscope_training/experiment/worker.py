"""The training in a worker process: one network, or the CNN from scratch, in all folds and runs."""

from __future__ import annotations

from senoscope_training.experiment.folder import read_unit, units_of
from senoscope_training.experiment.job_images import JobImages
from senoscope_training.experiment.job_network import JobNetwork
from senoscope_training.experiment.plan import Run, TrainingJob, draw_run
from senoscope_training.experiment.unit_writer import UnitWriter, phase_history
from senoscope_training.experiment.variant import Variant
from senoscope_training.networks.fitting import Checkpoint
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.systems import CHANNELS_OF
from senoscope_training.workers.pool import report_progress
from senoscope_training.workers.progress import Progress


def run_training(job: TrainingJob) -> None:
    """Train all units of a job that are not finished."""
    config = job.config
    images = JobImages(job)
    network = JobNetwork(job, images)
    writer = UnitWriter(job)
    suffix = job.network if job.network == "scratch" else f".{job.network}"
    units = [unit for unit in units_of(config) if unit.endswith(suffix)]
    steps = [(fold, run) for fold in job.folds for run in range(1, config.runs + 1)]
    for fold, number in steps:
        missing = [unit for unit in units if read_unit(config.directory, fold.name, number, unit) is None]
        if not missing:
            continue
        run = draw_run(job, fold, number, *images.pixels.shape[2:])
        if missing == ["scratch"]:
            _train_from_scratch(job, run, images, writer)
            continue
        variants: dict[tuple[int, ...] | None, list[str]] = {}
        for unit in missing:
            system = unit.split(".")[0]
            variants.setdefault(CHANNELS_OF.get(system), []).append(system)
        for kept, systems in variants.items():
            Variant(job, run, kept, images, network, writer).train(systems)
    report_progress(Progress("done", job.network, f"{len(steps)} runs"))
    network.close()


def _train_from_scratch(job: TrainingJob, run: Run, images: JobImages, writer: UnitWriter) -> None:
    from senoscope_training.networks.scratch import scale_to_unit, train_scratch

    settings = job.config.scratch
    train, held, test = images.for_run(run, None, scale_to_unit)
    checkpoint = Checkpoint(writer.folder(run) / "scratch.checkpoint.npz")
    seed = derive_seed(run.seed, "scratch")
    on_epoch = writer.on_epoch(run, "scratch", "training", settings.max_epochs)
    outcome = train_scratch(train, held, test, settings, seed, checkpoint, on_epoch)
    validation = writer.validation(run.held, outcome.held)
    writer.finish(run, "scratch", outcome.probability, validation, phase_history(outcome.state, 1))
    checkpoint.remove()
