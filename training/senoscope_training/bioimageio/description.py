"""The description of an ensemble in the format of bioimage.io, ``rdf.yaml``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bioimageio.spec.dataset.v0_3 import DatasetDescr
from bioimageio.spec.model import v0_5

from senoscope.engine.manifest import Input, Manifest
from senoscope_training.bioimageio import texts
from senoscope_training.bioimageio.merged import GRADCAM, IMAGE, NETWORKS, PROBABILITY
from senoscope_training.export.convert import OPSET

T = TypeVar("T")
_DOI = re.compile(r"10\.\d{4,9}/[^\s,;]+[^\s,;.]")
_TAGS = ("2d", "cells", "ensemble", "grad-cam", "image-classification", "label-free", "nonlinear-optical")
_FAMILIES = ("densenet", "inception", "resnet")  # tags of bioimage.io


@dataclass(frozen=True)
class Files:
    """The files of a package; tensors are named like the graph's inputs and outputs."""

    weights: Path
    documentation: Path
    cover: Path
    tensors: dict[str, Path]


def describe(manifest: Manifest, digest: str, files: Files) -> v0_5.ModelDescr:
    """Describe the merged network of an ensemble.

    The description contains no URL that bioimageio.spec would request.
    """
    spec = manifest.input
    return v0_5.ModelDescr(
        name=_plain(f"Senoscope {manifest.name}"),
        description=texts.description(manifest),
        authors=[
            v0_5.Author(name=re.sub(r"[/\\]", " ", name)) for name in manifest.authors if name != "not stated"
        ],
        cite=[
            v0_5.CiteEntry(text=text, doi=v0_5.Doi(found[0]))
            for text in manifest.cite
            if (found := _DOI.search(text))
        ],
        license=_valid(v0_5.LicenseId, manifest.licence),
        documentation=v0_5.FileDescr(source=files.documentation),
        covers=[v0_5.FileDescr(source=files.cover)],
        tags=_tags(manifest),
        version=_valid(v0_5.Version, manifest.version),
        timestamp=v0_5.Datetime(manifest.created),
        inputs=[
            v0_5.InputTensorDescr(
                id=v0_5.TensorId(IMAGE),
                description="a field of view in raw detector counts",
                axes=[
                    v0_5.BatchAxis(),
                    v0_5.ChannelAxis(channel_names=list(spec.channel_names)),
                    *_plane(v0_5.SpaceInputAxis, spec),
                ],
                test_tensor=v0_5.FileDescr(source=files.tensors[IMAGE]),
                data=v0_5.IntervalOrRatioDataDescr(type="float32"),
            )
        ],
        outputs=_outputs(manifest, files),
        weights=v0_5.WeightsDescr(onnx=v0_5.OnnxWeightsDescr(source=files.weights, opset_version=OPSET)),
        training_data=DatasetDescr(
            name=_plain(f"Training data of Senoscope {manifest.name}"),
            description=texts.training_data(manifest),
        ),
        config=_config(manifest, digest),
    )


def _outputs(manifest: Manifest, files: Files) -> list[v0_5.OutputTensorDescr]:
    unit_interval = v0_5.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0))
    channels = {
        PROBABILITY: [manifest.ensemble.classes[1]],
        NETWORKS: [network.name for network in manifest.networks],
    }
    plane = _plane(v0_5.SpaceOutputAxis, manifest.input)
    descriptions = {
        PROBABILITY: "probability of the class in the channel's name: the mean over the networks",
        NETWORKS: "probability by each network",
        GRADCAM: "mean of the networks' Grad-CAM maps, weighted with their probabilities",
    }
    return [
        v0_5.OutputTensorDescr(
            id=v0_5.TensorId(name),
            description=text,
            axes=[
                v0_5.BatchAxis(),
                *([v0_5.ChannelAxis(channel_names=channels[name])] if name in channels else plane),
            ],
            test_tensor=v0_5.FileDescr(source=files.tensors[name]),
            data=unit_interval,
        )
        for name, text in descriptions.items()
    ]


def _plane(kind: Any, spec: Input) -> list[Any]:
    return [
        kind(id=v0_5.AxisId(axis), size=size, unit="micrometer", scale=spec.pixel_size_um)
        for axis, size in (("y", spec.height), ("x", spec.width))
    ]


def _config(manifest: Manifest, digest: str) -> v0_5.Config:
    spec, training = manifest.input, manifest.training
    return v0_5.Config(
        bioimageio=v0_5.BioimageioConfig(
            architecture_type="ensemble of CNNs",
            architecture_description="; ".join(
                f"{network.name}: {network.architecture}" for network in manifest.networks
            ),
            modality=f"nonlinear optical microscopy ({', '.join(spec.channel_names)})",
            target_structure=["cells"],
            task="classification",
            out_of_scope_use=texts.limits(manifest),
            bias_risks_limitations=v0_5.BiasRisksLimitations(limitations=texts.limits(manifest)),
            training=v0_5.TrainingDetails(
                training_preprocessing="each channel from its intensity range "
                f"({manifest.normalization.method}, fitted on {manifest.normalization.fitted_on}) to 0..255; "
                "part of the network",
            ),
        ),
        senoscope={
            "name": manifest.name,
            "version": manifest.version,
            "ensemble_json_sha256": digest,
            "for_science": manifest.for_science,
            "intended_use": manifest.intended_use,
            "threshold": manifest.ensemble.threshold,
            "classes": list(manifest.ensemble.classes),
            "intensity_range": {
                channel.name: [bounds.low, bounds.high]
                for channel, bounds in zip(spec.channels, manifest.normalization.channels, strict=True)
            },
            "networks": {network.name: network.variants[0].sha256 for network in manifest.networks},
            "training": {"runs": training.runs, "data_sha256": training.data_sha256},
        },
    )


def _plain(text: str) -> str:
    """Replace the characters that bioimage.io does not allow in a name, and limit it to 128."""
    return re.sub(r"[^A-Za-z0-9_+\- ()]", "_", text)[:128]


def _valid(kind: Callable[[str], T], text: str) -> T | None:
    """Return None if a licence or version is not in bioimage.io's format; other fields contain its text."""
    try:
        return kind(text)
    except ValueError:
        return None


def _tags(manifest: Manifest) -> list[str]:
    families = {tag for tag in _FAMILIES for network in manifest.networks if tag in network.name}
    warnings = () if manifest.for_science else ("not-for-science", "synthetic")
    return [*_TAGS, *sorted(families), *manifest.ensemble.classes, *warnings]
