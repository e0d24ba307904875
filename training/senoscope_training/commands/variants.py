"""The command ``senoscope-train variants``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senoscope_training.commands.data_options import (
    AcceptOption,
    FitOption,
    GreyOption,
    PerChannelOption,
    as_options,
    data_config,
)
from senoscope_training.commands.shared import JsonProgress, ModelsDir, chosen_precisions, exit_with_error

if TYPE_CHECKING:
    from senoscope.engine.manifest import Manifest
    from senoscope.engine.precision import FilePrecision
    from senoscope_training.variants.judge import Judgement

FovsCount = Annotated[
    int, typer.Option(min=4, help="FOVs on which variants are compared with fp32, at most.")
]


def variants(
    model: Annotated[str, typer.Argument(help="Ensemble: a name in the folder of the ensembles, or a path.")],
    precisions: Annotated[
        str,
        typer.Option(
            "--variants",
            metavar="PRECISION,...",
            help="Variants to make: fp16, int8 (needs the extra int8), or none: only reference FOVs, with "
            "which machines check tf32.",
        ),
    ] = "fp16",
    data: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder of a labelled data set: the FOVs that the ensemble was tested on are used; of "
            "another data set, all.",
        ),
    ] = None,
    fovs: Annotated[
        list[Path] | None,
        typer.Option(dir_okay=False, help="Instead: TIFF stack or NPY array; repeat the option for more."),
    ] = None,
    fovs_count: Annotated[
        int, typer.Option(min=4, max=10_000, help="FOVs to compare variants with fp32 on, at most.")
    ] = 128,
    fit: FitOption = "refuse",
    grey: GreyOption = False,
    per_channel: PerChannelOption = None,
    accept: AcceptOption = None,
    models_dir: ModelsDir = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Networks to convert in parallel.  [default: by number of cores]"),
    ] = None,
    json_progress: JsonProgress = False,
) -> None:
    """Make variants of an ensemble in lower precisions, compare them with fp32, and keep those that pass.

    Existing variants of the ensemble are replaced. Ensembles trained on synthetic FOVs, such as the starter,
    need neither --data nor --fovs.
    """
    from senoscope.engine.errors import EnsembleError
    from senoscope.engine.locations import default_models_dir
    from senoscope.starter.locate import locate_ensemble
    from senoscope_client.errors import SenoscopeError
    from senoscope_training.config import ConfigError
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.variants.errors import VariantError
    from senoscope_training.variants.fovs import from_data_set, from_files, synthetic_for
    from senoscope_training.variants.write import VariantOptions, read_verified, write_variants
    from senoscope_training.workers.pool import WorkerDied
    from senoscope_training.workers.progress import JsonReporter, Progress, TextReporter

    wanted = chosen_precisions(precisions)
    if data is not None and fovs:
        raise typer.BadParameter("pass either --data or --fovs")
    try:
        folder = locate_ensemble(model, models_dir or default_models_dir(), partial(print, file=sys.stderr))
        manifest, _ = read_verified(folder)
        names = tuple(network.name for network in manifest.networks)
        with JsonReporter() if json_progress else TextReporter(names) as report:
            if data is not None:
                config = data_config(data, fit, grey, per_channel, accept or [])
                found = from_data_set(manifest, config, fovs_count, report)
            elif fovs:
                found = from_files(manifest, fovs, fovs_count)
            else:
                report(Progress("synthetic FOVs", detail=str(fovs_count)))
                found = synthetic_for(manifest, fovs_count)
            made, judged = write_variants(folder, found, VariantOptions(wanted, jobs=jobs), report)
    except (
        *(EnsembleError, VariantError, SenoscopeError, ConfigError),
        *(DataSetError, WorkerDied, OSError),
    ) as error:
        exit_with_error(as_options(str(error)))
    except KeyboardInterrupt:
        exit_with_error("interrupted; the ensemble was not changed", 130)
    if not json_progress:
        _print_figures(made, judged)
        print(folder)


def _print_figures(manifest: Manifest, judged: dict[FilePrecision, Judgement]) -> None:
    from rich.console import Console
    from rich.table import Table

    from senoscope_training.variants.card import figures_of

    if not judged:
        return
    columns = ("network", "precision", "max |dp|", "p99", "flips", "Grad-CAM", "AUC loss", "")
    source = "" if manifest.reference is None else manifest.reference.source
    table = Table(*columns, title=f"{manifest.name}: deviation from fp32 on {source}")
    reasons = []
    for precision, one in judged.items():
        for network in manifest.networks:
            rejected = one.rejected.get(network.name)
            agreement = rejected.agreement if rejected else one.accepted[network.name].agreement
            figures = figures_of(agreement)
            table.add_row(network.name, precision, *figures, "rejected" if rejected else "accepted")
            if rejected:
                reasons.append(f"{network.name}, {precision}: {'; '.join(rejected.reasons)}")
        if one.ensemble is not None:
            table.add_row("ensemble", precision, *figures_of(one.ensemble), "")
    Console(width=max(100, Console().width)).print(table)
    print(*reasons, sep="\n", end="\n" if reasons else "")
