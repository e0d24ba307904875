"""Texts of a package about an ensemble, generated from the manifest."""

from __future__ import annotations

import textwrap

from senoscope.engine.manifest import Manifest
from senoscope_training.bioimageio.merged import GRADCAM, IMAGE, NETWORKS, PROBABILITY
from senoscope_training.export.model_card import metric_table, range_table, warning_lines

_MAX_DESCRIPTION = 512  # characters; bioimage.io warns about longer descriptions
_NOT_FOR_SCIENCE = (
    "Not for science: trained on synthetic images, its predictions are meaningless for real cells."
)


def description(manifest: Manifest) -> str:
    """Describe the ensemble in a few sentences, at most 512 characters."""
    negative, positive = manifest.ensemble.classes
    spec = manifest.input
    text = (
        f"{'' if manifest.for_science else _NOT_FOR_SCIENCE + ' '}"
        f"Ensemble of {len(manifest.networks)} networks that classifies fields of view of a nonlinear "
        f"optical microscope as {positive} or {negative} ({', '.join(spec.channel_names)}; raw detector "
        f"counts, {spec.height} x {spec.width} pixels), with a Grad-CAM map that explains the result. "
        f"{manifest.intended_use}"
    )
    return textwrap.shorten(text, _MAX_DESCRIPTION, placeholder=" ...")


def training_data(manifest: Manifest) -> str:
    """Describe the data for training and testing, in two sentences."""
    split = manifest.training.split
    train, test = (
        split.get(counted, len(split.get(listed, ())))
        for counted, listed in (("train_fovs", "train"), ("held_out_fovs", "test"))
    )
    kind = "Fields of view" if manifest.for_science else "Synthetic fields of view"
    return (
        f"{kind}: {train} for training, {test} held out for testing. They are not published with the "
        f"ensemble; their SHA-256 is {manifest.training.data_sha256}."
    )


def limits(manifest: Manifest) -> str:
    """Describe limitations and out-of-scope use, in a few sentences."""
    spec = manifest.input
    return (
        f"{'' if manifest.for_science else _NOT_FOR_SCIENCE + ' '}Not for diagnosis. "
        f"Only for fields of view of {spec.height} x {spec.width} pixels of {spec.pixel_size_um:g} um, with "
        "the channels, sample preparation and detector settings of the training data: images from another "
        "microscope, or with other laser powers or gains, have another intensity scale, which the package "
        "cannot calibrate."
    )


def readme(manifest: Manifest, digest: str) -> str:
    """Return the documentation in the package, as Markdown."""
    negative, positive = manifest.ensemble.classes
    threshold = manifest.ensemble.threshold
    names = ", ".join(network.name for network in manifest.networks)
    cite = "\n".join(f"- {text}" for text in manifest.cite) or "Nothing stated."
    return f"""# {manifest.name} {manifest.version}

{description(manifest)}

**Intended use.** {manifest.intended_use}

{warning_lines(manifest)}**Licence.** {manifest.licence}. **Authors.** {", ".join(manifest.authors)}.

## Input

`{IMAGE}`: float32, axes batch, channel, y, x. Raw detector counts, not scaled and not clipped: the network
maps each channel from this range to 0..255 (fitted on {manifest.normalization.fitted_on}):

{range_table(manifest)}

## Outputs

| | axes | |
|---|---|---|
| `{PROBABILITY}` | batch, channel | probability of {positive}: the mean over the networks |
| `{NETWORKS}` | batch, channel | probability of {positive} by each network |
| `{GRADCAM}` | batch, y, x | 0 to 1, large in regions that increase the probability of {positive} |

A probability greater than {threshold:g} means {positive}, otherwise {negative}. The networks are, in order,
{names}.
The map is the mean of the networks' Grad-CAM maps, each divided by its maximum and weighted with its
network's probability.

## Training data

{training_data(manifest)}

## Validation

On the held-out fields of view:

{metric_table(manifest) if manifest.metrics else "no metrics were computed."}

Before using the model on new data, validate it: label fields of view of your own that were not used for
training, at least some dozens of each class and from other culture plates and days, run the model on them,
and compute accuracy, sensitivity and specificity with their confidence intervals. Check the maps, too.

## Limits

{limits(manifest)}

Fields of view of one culture plate are similar; if training and test share plates, the metrics above are too
optimistic for new plates.

## Origin

Created by Senoscope from the ensemble `{manifest.name}` {manifest.version}, whose `ensemble.json` has the
SHA-256 `{digest}`.

## Cite

{cite}
"""
