"""The section on lower precisions in an ensemble's model card."""

from __future__ import annotations

import re
from pathlib import Path

from senoscope.engine.manifest import Manifest
from senoscope.engine.manifest_variants import Agreement
from senoscope_training.workers.files import write_atomic

_BEGIN, _END = "<!-- lower precisions, generated -->", "<!-- end of lower precisions -->"
_SECTION = re.compile(rf"\n*{re.escape(_BEGIN)}.*?{re.escape(_END)}\n*", re.DOTALL)
CARD_NAME = "README.md"


def write_section(folder: Path, manifest: Manifest) -> None:
    """Add or replace the section in the model card; an ensemble without a card gets a short one."""
    path = folder / CARD_NAME
    text = (
        path.read_text(encoding="utf-8")
        if path.is_file()
        else (f"# {manifest.name} {manifest.version}\n\n**Intended use.** {manifest.intended_use}\n")
    )
    write_atomic(path, f"{_SECTION.sub('', text).rstrip()}\n\n{_BEGIN}\n{section(manifest)}{_END}\n")


def section(manifest: Manifest) -> str:
    """Return the section as Markdown."""
    reference = manifest.reference
    if reference is None:
        return ""
    rows = [
        _row(network.name, variant.precision, variant.parity.agreement, f"{variant.bytes / 1e6:.1f} MB")
        for network in manifest.networks
        for variant in network.variants
        if variant.parity.agreement is not None
    ]
    rows += [
        _row(network.name, one.precision, one.agreement, f"rejected: {'; '.join(one.reasons)}")
        for network in manifest.networks
        for one in network.rejected_variants
    ]
    rows += [_row("**ensemble**", precision, one, "") for precision, one in reference.agreement.items()]
    table = "\n".join(
        [
            "| network | precision | max abs(dp) | p99 abs(dp) | flips | Grad-CAM | AUC loss | |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    figures = f"\nDeviation from fp32:\n\n{table}\n" if rows else ""
    return f"""## Lower precisions

Each machine compares lower precisions with fp32 on {reference.source}
(`{reference.file}`, with the outputs of fp32 in `{reference.expected}`). Rejected variants
have no file; those networks run in fp32.
{figures}"""


def figures_of(agreement: Agreement | None) -> tuple[str, str, str, str, str]:
    """Return deviations, flips, overlap of the maps and loss of AUC as texts."""
    if agreement is None:
        return ("", "", "", "", "")
    return (
        f"{agreement.max_abs_probability:.4f}",
        f"{agreement.p99_abs_probability:.4f}",
        str(agreement.label_flips),
        f"{agreement.gradcam_iou:.3f}",
        "" if agreement.auc_loss is None else f"{agreement.auc_loss:.4f}",
    )


def _row(name: str, precision: str, agreement: Agreement | None, note: str) -> str:
    return f"| {' | '.join([name, precision, *figures_of(agreement), note])} |"
