"""The model card of an exported ensemble."""

from __future__ import annotations

from senoscope.engine.manifest import Manifest


def range_table(manifest: Manifest) -> str:
    """Return the raw values that are mapped to 0 and 255, as a Markdown table."""
    rows = [
        f"| {channel.name} | {bounds.low:g} | {bounds.high:g} |"
        for channel, bounds in zip(manifest.input.channels, manifest.normalization.channels, strict=True)
    ]
    return "\n".join(["| channel | low | high |", "|---|---|---|", *rows])


def metric_table(manifest: Manifest) -> str:
    """Return the ensemble's metrics, as a Markdown table."""
    rows = [f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items()]
    return "\n".join(["| metric | value |", "|---|---|", *rows])


def warning_lines(manifest: Manifest) -> str:
    """Return the warnings of the manifest as Markdown, or an empty string."""
    return "".join(f"**Warning.** {warning}.\n\n" for warning in manifest.warnings)


def model_card(manifest: Manifest) -> str:
    """Generate the model card from the manifest, as Markdown."""
    spec, training = manifest.input, manifest.training
    negative, positive = manifest.ensemble.classes
    networks = "\n".join(
        f"| {network.name} | {network.metrics.get('test_accuracy', float('nan')):.1%} | "
        f"{network.variants[0].parity.max_abs_logit:.1e} | {network.variants[0].parity.max_abs_gradcam:.1e} |"
        for network in manifest.networks
    )
    train, test = len(training.split.get("train", ())), len(training.split.get("test", ()))
    return f"""# {manifest.name} {manifest.version}

An ensemble of {len(manifest.networks)} networks that classifies a field of view as {positive} or {negative}.

**Intended use.** {manifest.intended_use}

{warning_lines(manifest)}**Licence.** {manifest.licence}. **Authors.** {", ".join(manifest.authors)}.

## Input

{spec.height} x {spec.width} pixels of {spec.pixel_size_um:g} um; channels and the raw values that are mapped
to 0 and 255 (fitted on {manifest.normalization.fitted_on}):

{range_table(manifest)}

Images from another microscope, or with other laser powers or gains, have another intensity scale: calibrate
the range before you use the predictions.

## Training and test

{train} FOVs for training and {test} for testing, split by {training.config["split"]["by"]}. Data set SHA-256
`{training.data_sha256}`. The configuration, the files of both sides and the software versions are in
`ensemble.json`.

On the test FOVs (probability greater than {manifest.ensemble.threshold:g} means {positive}):

{metric_table(manifest)}

The single networks, with the largest deviation of the exported file from Keras:

| network | test accuracy | logit | Grad-CAM (of its maximum) |
|---|---|---|---|
{networks}

## Limits

The metrics are valid for FOVs like those of the test set. FOVs of one culture plate are similar: with a
split by FOV, the metrics are too optimistic for new plates. `test_vector_*.npy` are two FOVs of the data
set; the service computes them for verification whenever it loads the ensemble.

## Cite

{chr(10).join(f"- {text}" for text in manifest.cite)}
"""
