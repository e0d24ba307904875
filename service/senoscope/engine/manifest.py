"""The manifest of an ensemble, ``ensemble.json``: its networks, and their expected outputs."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from senoscope.engine.errors import EnsembleError
from senoscope.engine.manifest_fields import (
    ChannelName,
    Extent,
    FileName,
    Label,
    ManifestModel,
    Name,
    Probability,
    Sha256,
    Text,
    Title,
    Unit,
    Version,
    to_single_precision,
)
from senoscope.engine.manifest_json import parse_json
from senoscope.engine.manifest_variants import Agreement, Reference, RejectedVariant
from senoscope.engine.precision import FilePrecision

MANIFEST_NAME = "ensemble.json"
SCHEMA_VERSION: Literal["1.0"] = "1.0"
_MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024
# Values of one field of view, as many as a frame of the stream can have.
_MAX_VALUES = 64 * 1024 * 1024


def _without_absent(document: dict[str, Any], field: str) -> dict[str, Any]:
    """Omit a field without a value: the digest of ensembles of earlier releases depends on it."""
    if not document.get(field):
        document.pop(field, None)
    return document


class Channel(ManifestModel):
    """One detector channel of the input; ``unit`` is that of its raw values."""

    name: ChannelName
    unit: Unit = "counts"


class Input(ManifestModel):
    """The field of view that the networks take.

    Attributes
    ----------
    height, width : int
        Pixels.
    channels : tuple of Channel
        In the order in which the networks take them.
    pixel_size_um : float
        Edge of a pixel in the sample.
    """

    height: Extent
    width: Extent
    channels: tuple[Channel, ...] = Field(min_length=1, max_length=64)
    pixel_size_um: float = Field(gt=0)

    @model_validator(mode="after")
    def _check_channels_and_size(self) -> Input:
        names = self.channel_names
        if len(set(names)) != len(names):
            raise ValueError(f"channel names repeat: {', '.join(names)}")
        if len(names) * self.height * self.width > _MAX_VALUES:
            raise ValueError(f"a field of view has more than {_MAX_VALUES} values")
        return self

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        return len(self.channels), self.height, self.width


class ChannelRange(ManifestModel):
    """Raw values that are mapped to 0 and to 255.

    Attributes
    ----------
    saturated_p99 : float, optional
        Fraction of a field of view's pixels above ``high`` that one in a hundred training FOVs exceeds: a
        range without outliers cuts bright structures. Older ensembles do not have it.
    """

    low: float
    high: float
    saturated_p99: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _check_order(self) -> ChannelRange:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
        if not to_single_precision(self.low) < to_single_precision(self.high):
            raise ValueError(f"low ({self.low}) and high ({self.high}) are equal in single precision")
        return self


class NormalizationSpec(ManifestModel):
    """The intensity range that the ensemble was trained with.

    Attributes
    ----------
    method : str
        ``median_iqr``: smallest and largest pixel within median +- ``k_iqr`` interquartile ranges.
    fitted_on : str
        Description of the data set.
    """

    method: Literal["median_iqr"] = "median_iqr"
    k_iqr: float = Field(3.5, gt=0)
    channels: tuple[ChannelRange, ...]
    fitted_on: Text


class BackboneWeights(ManifestModel):
    """Origin of the backbone's weights; ``sha256`` is that of the weight file or of the weights' bytes."""

    source: Text
    sha256: Sha256


class Parity(ManifestModel):
    """Largest deviation of the exported graph from Keras, for fp32, or from fp32, for the other precisions.

    Attributes
    ----------
    max_abs_logit : float
        Of the logit.
    max_abs_gradcam : float
        Of the Grad-CAM map, as a fraction of the map's maximum.
    agreement : Agreement, optional
        Of probabilities, labels and maps with fp32; only for the other precisions.
    """

    max_abs_logit: float
    max_abs_gradcam: float
    agreement: Agreement | None = None

    @model_serializer(mode="wrap")
    def _omit_absent_agreement(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(handler(self), "agreement")


class Variant(ManifestModel):
    """One ONNX file of a network."""

    precision: FilePrecision
    file: FileName
    bytes: int = Field(gt=0)
    sha256: Sha256
    parity: Parity


class Network(ManifestModel):
    """One network of the ensemble.

    Attributes
    ----------
    gradcam_grid : tuple of int
        Rows and columns of its Grad-CAM map.
    feature_size : int
        Length of its pooled feature vector.
    rejected_variants : tuple of RejectedVariant
        Variants that failed the gate at export.
    """

    name: Name
    architecture: Title
    opset: int
    gradcam_grid: tuple[Extent, Extent]
    feature_size: int = Field(gt=0, le=1024 * 1024)
    backbone_weights: BackboneWeights
    seed: int
    metrics: dict[Title, float] = Field(default_factory=dict)
    variants: tuple[Variant, ...] = Field(min_length=1)
    rejected_variants: tuple[RejectedVariant, ...] = Field((), max_length=10)

    @model_serializer(mode="wrap")
    def _omit_absent_rejections(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(handler(self), "rejected_variants")

    def variant(self, precision: str) -> Variant | None:
        """Return the variant of a precision, or None."""
        return next((v for v in self.variants if v.precision == precision), None)


class Combination(ManifestModel):
    """How the outputs of the networks are combined.

    Attributes
    ----------
    threshold : float
        The label is the second class if the probability is greater.
    classes : tuple of str
        The negative class and the positive one.
    """

    combiner: Literal["mean"] = "mean"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    classes: tuple[Label, Label] = ("control", "senescent")


class Training(ManifestModel):
    """How the ensemble was trained, in enough detail to repeat it."""

    config: dict[str, Any]
    data_sha256: Sha256
    split: dict[str, Any]
    runs: int
    software: dict[Title, Text]


class Expected(ManifestModel):
    """The expected output of an ensemble for a test vector.

    Attributes
    ----------
    probability : float
    networks : dict of str to float
        Each network's probability.
    gradcams : dict of str to rows of numbers, optional
        Grad-CAM maps of networks on their own grids, as the graphs output them: not normalised.
    """

    probability: Probability
    networks: dict[str, Probability]
    gradcams: dict[str, tuple[tuple[float, ...], ...]] | None = None

    @model_serializer(mode="wrap")
    def _omit_absent_maps(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(handler(self), "gradcams")


class TestVector(ManifestModel):
    """A field of view with its expected output.

    Attributes
    ----------
    file : str
        NPY file, [C, H, W].
    expected : Expected
        Computed with Keras if the ensemble was created with Keras.
    tolerance : float
        Largest absolute deviation of a probability.
    gradcam_tolerance : float
        Largest deviation of a Grad-CAM map, as a fraction of the expected map's maximum.
    """

    __test__ = False  # not a test class for pytest

    file: FileName
    sha256: Sha256
    expected: Expected
    tolerance: float = Field(gt=0, le=0.1)
    gradcam_tolerance: float = Field(0.01, gt=0, le=0.1)

    @model_serializer(mode="wrap")
    def _omit_unused_tolerance(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        if self.expected.gradcams is None:
            document.pop("gradcam_tolerance", None)
        return document


class Manifest(ManifestModel):
    """The content of ``ensemble.json``.

    Attributes
    ----------
    name, version : str
        Of the ensemble; every result carries both.
    intended_use : str
        What it may and may not be used for.
    for_science : bool
        False for ensembles trained on synthetic data; every result then carries a flag.
    warnings : tuple of str
        Faults of the ensemble that were accepted at its export; those of one network begin with its name.
    reference : Reference, optional
        Fields of view with which each machine checks lower precisions; without them it runs in fp32 only.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    name: Name
    version: Version
    created: datetime
    licence: Text
    intended_use: Text
    for_science: bool = True
    authors: tuple[Title, ...] = Field(max_length=1000)
    cite: tuple[Text, ...] = Field(max_length=100)
    input: Input
    normalization: NormalizationSpec
    networks: tuple[Network, ...] = Field(min_length=1)
    ensemble: Combination = Combination()
    training: Training
    metrics: dict[Title, float] = Field(default_factory=dict)
    warnings: tuple[Text, ...] = Field((), max_length=100)
    test_vectors: tuple[TestVector, ...] = Field(min_length=1)
    reference: Reference | None = None

    @model_serializer(mode="wrap")
    def _omit_absent_reference(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(handler(self), "reference")

    @model_validator(mode="after")
    def _check_consistency(self) -> Manifest:
        channels = len(self.input.channels)
        if len(self.normalization.channels) != channels:
            raise ValueError(
                f"normalization has {len(self.normalization.channels)} channels, input has {channels}"
            )
        names = [network.name for network in self.networks]
        if len(set(names)) != len(names):
            raise ValueError(f"network names repeat: {names}")
        for vector in self.test_vectors:
            if set(vector.expected.networks) != set(names):
                raise ValueError(
                    f"test vector {vector.file} does not have a probability for exactly the networks"
                )
            self._check_maps(vector)
        low, high = self.ensemble.classes
        if low == high:
            raise ValueError(f"both classes are called {low!r}")
        for network in self.networks:
            rows, columns = network.gradcam_grid
            if rows > self.input.height or columns > self.input.width:
                raise ValueError(
                    f"the Grad-CAM grid of {network.name}, {rows} x {columns}, exceeds the field of view"
                )
        return self

    def _check_maps(self, vector: TestVector) -> None:
        grids = {network.name: network.gradcam_grid for network in self.networks}
        for name, rows in (vector.expected.gradcams or {}).items():
            if name not in grids:
                raise ValueError(f"test vector {vector.file} has a map of {name!r}, which is not a network")
            if (len(rows), *{len(row) for row in rows}) != grids[name]:
                raise ValueError(
                    f"the map of {name} in test vector {vector.file} does not have its grid {grids[name]}"
                )

    def to_json(self) -> str:
        """Return the text of ``ensemble.json``.

        Empty ``warnings`` are omitted: earlier releases refuse unknown fields.
        """
        left_out = None if self.warnings else {"warnings"}
        return self.model_dump_json(indent=2, exclude=left_out) + "\n"


def sha256_of(path: Path, between_blocks: Callable[[], object] = lambda: None) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Parameters
    ----------
    between_blocks : callable
        Called before each MiB; an exception from it ends the reading.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while True:
            between_blocks()
            count = file.readinto(block)
            if not count:
                return digest.hexdigest()
            digest.update(block[:count])


def _require_regular(path: Path) -> None:
    """Refuse named pipes and devices, which could block forever when they are opened."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise EnsembleError(path, "is not a regular file")


def read_manifest(directory: Path) -> tuple[Manifest, str]:
    """Read ``ensemble.json`` of an ensemble's folder.

    Returns
    -------
    manifest : Manifest
    digest : str
        SHA-256 of the file. It identifies the whole ensemble, because the file contains all other hashes.

    Raises
    ------
    EnsembleError
        If the file is missing, is not JSON, or does not match the schema.
    """
    path = directory / MANIFEST_NAME
    try:
        _require_regular(path)
        with path.open("rb") as file:
            text = file.read(_MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise EnsembleError(path, "no such file; is this the folder of an ensemble?") from None
    except OSError as error:
        raise EnsembleError(path, f"cannot be read: {error.strerror}") from error
    if len(text) > _MAX_MANIFEST_BYTES:
        raise EnsembleError(path, f"is larger than {_MAX_MANIFEST_BYTES // 1024**2} MiB")
    try:
        document = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise EnsembleError(path, f"cannot be parsed: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise EnsembleError(path, f"has schema_version {version!r}; this release reads {SCHEMA_VERSION!r}")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'manifest'}: {e['msg']}" for e in error.errors()
        )
        raise EnsembleError(path, f"does not match the schema: {problems}") from error
    return manifest, hashlib.sha256(text).hexdigest()


def verify_file(path: Path, sha256: str, between_blocks: Callable[[], object] = lambda: None) -> None:
    """Check a file of an ensemble against the hash of its manifest.

    Parameters
    ----------
    between_blocks : callable
        See `sha256_of`.

    Raises
    ------
    EnsembleError
        If the file is missing, is not a regular file, or has another content.
    """
    try:
        _require_regular(path)
        actual = sha256_of(path, between_blocks)
    except FileNotFoundError:
        raise EnsembleError(path, "is listed in ensemble.json but is missing") from None
    except OSError as error:
        raise EnsembleError(path, f"cannot be read: {error.strerror}") from error
    if actual != sha256:
        raise EnsembleError(
            path,
            f"has sha256 {actual[:12]}..., ensemble.json says {sha256[:12]}...: "
            "the file was changed or damaged; download or build the ensemble again",
        )
