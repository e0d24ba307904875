"""What a package says of an ensemble, from the manifest alone."""

from __future__ import annotations

import textwrap

from senoscope.engine.manifest import Manifest
from senoscope_training.bioimageio.merged import GRADCAM, IMAGE, NETWORKS, PROBABILITY
from senoscope_training.export.model_card import metric_table, range_table, warning_lines

_LONGEST_DESCRIPTION = 512  # beyond which bioimage.io warns
_NOT_FOR_SCIENCE = "Not for science: trained on synthetic images, it says nothing about real cells."


def description(manifest: Manifest) -> str:
    """A few sentences, at most 512 characters."""
    negative, positive = manifest.ensemble.classes
    spec = manifest.input
    text = (
        f"{'' if manifest.for_science else _NOT_FOR_SCIENCE + ' '}"
        f"Ensemble of {len(manifest.networks)} networks that tells {positive} from {negative} in fields of "
        f"view of a nonlinear optical microscope ({', '.join(spec.channel_names)}; raw detector counts, "
        f"{spec.height} x {spec.width} pixels), with a Grad-CAM map that shows why. "
        f"{manifest.intended_use}"
    )
    return textwrap.shorten(text, _LONGEST_DESCRIPTION, placeholder=" ...")


def training_data(manifest: Manifest) -> str:
    """What the ensemble was trained and tested on, in two sentences."""
    split = manifest.training.split
    train, test = (
        split.get(counted, len(split.get(listed, ())))
        for counted, listed in (("train_fovs", "train"), ("held_out_fovs", "test"))
    )
    kind = "Fields of view" if manifest.for_science else "Synthetic fields of view that a program has drawn"
    return (
        f"{kind}: {train} for training, {test} held out for test. They are not published with the "
        f"ensemble; their SHA-256 is {manifest.training.data_sha256}."
    )


def limits(manifest: Manifest) -> str:
    """What not to use it for, in a few sentences."""
    spec = manifest.input
    return (
        f"{'' if manifest.for_science else _NOT_FOR_SCIENCE + ' '}Not for diagnosis. "
        f"Only for fields of view of {spec.height} x {spec.width} pixels of {spec.pixel_size_um:g} um, with "
        "the channels, sample preparation and detector settings of the training data: images from another "
        "microscope, or with other laser powers or gains, lie on another intensity scale, and the package "
        "has no way to calibrate it."
    )


def readme(manifest: Manifest, digest: str) -> str:
    """The documentation within the package, as Markdown."""
    negative, positive = manifest.ensemble.classes
    threshold = manifest.ensemble.threshold
    names = ", ".join(network.name for network in manifest.networks)
    cite = "\n".join(f"- {text}" for text in manifest.cite) or "Nothing stated."
    return f"""# {manifest.name} {manifest.version}

{description(manifest)}

**Intended use.** {manifest.intended_use}

{warning_lines(manifest)}**Licence.** {manifest.licence}. **Authors.** {", ".join(manifest.authors)}.

## Input

`{IMAGE}`: float32, axes batch, channel, y, x. Raw detector counts: neither scaled nor cut, that is part of
the network. Each channel is mapped from this range to 0..255 (fitted on {manifest.normalization.fitted_on}):

{range_table(manifest)}

## Outputs

| | axes | |
|---|---|---|
| `{PROBABILITY}` | batch, channel | of {positive}: the mean over the networks |
| `{NETWORKS}` | batch, channel | of each network alone |
| `{GRADCAM}` | batch, y, x | 0 to 1, bright where {positive} is seen |

A probability greater than {threshold:g} means {positive}, else {negative}. The networks are, in order,
{names}.
The map is the mean of the networks' Grad-CAM maps, each over its own maximum and weighted with its
network's probability.

## Training data

{training_data(manifest)}

## Validation

On the held-out fields of view:

{metric_table(manifest) if manifest.metrics else "nothing was measured."}

Before trusting an answer on new data: label fields of view of your own that were not used for training, at
least some dozens of each class and from other culture plates and days, run the model on them, and compute
accuracy, sensitivity and specificity with their confidence intervals. Look at the maps, too.

## Limits

{limits(manifest)}

Fields of view of one culture plate resemble each other; where training and test shared plates, the figures
above flatter what to expect on a new one.

## Origin

Made by Senoscope from the ensemble `{manifest.name}` {manifest.version}, whose `ensemble.json` has the
SHA-256 `{digest}`.

## Cite

{cite}
"""
