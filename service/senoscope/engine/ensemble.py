"""An ensemble as a library: computes probabilities and Grad-CAM maps from arrays of raw counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine import locations
from senoscope.engine.blank_networks import blank_reason
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.contract import (
    check_batch,
    check_outputs,
    has_count,
    has_invalid_values,
    problem_of_values,
)
from senoscope.engine.devices import Device, DeviceRow, open_on_device
from senoscope.engine.errors import EnsembleError
from senoscope.engine.executor import EngineFacts, NetworkOutput, Opening
from senoscope.engine.gate import GateFigures, GateLimits
from senoscope.engine.gradcam import ensemble_map
from senoscope.engine.intensity import IntensityRange, as_real_numbers
from senoscope.engine.manifest import Manifest, TestVector, read_manifest
from senoscope.engine.precision import PrecisionChoice
from senoscope.engine.precision_files import Rejection
from senoscope.engine.precision_selection import Opened, PrecisionSelection
from senoscope.engine.reference_fovs import read_fovs


@dataclass(frozen=True)
class Prediction:
    """The output of an ensemble for one field of view.

    Attributes
    ----------
    probability : float
        Of the positive class (senescent): the mean over the networks.
    label : str
        The positive class if ``probability`` exceeds the ensemble's threshold.
    networks : tuple of str
        The K networks, in the order of all attributes below.
    logits, probabilities : float32 array [K]
    gradcams : tuple of K float32 arrays [h_k, w_k]
        Each network's Grad-CAM map on its own grid, non-negative, not normalised.
    features : tuple of K float32 arrays [C_k]
        Globally max-pooled features of the last convolutional layer.
    shape : tuple of int
        Rows and columns of the field of view.

    Notes
    -----
    All arrays own their memory: a view would keep the memory of ONNX Runtime or of a whole batch allocated as
    long as the prediction.
    """

    probability: float
    label: str
    networks: tuple[str, ...]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    gradcams: tuple[npt.NDArray[np.float32], ...]
    features: tuple[npt.NDArray[np.float32], ...]
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        arrays = (self.logits, self.probabilities, *self.gradcams, *self.features)
        return sum(array.nbytes for array in arrays)

    def outputs(self) -> list[NetworkOutput]:
        """Return the output of each network, as for a batch of one."""
        parts = zip(self.logits, self.probabilities, self.gradcams, self.features, strict=True)
        return [NetworkOutput(*(np.asarray(part)[None] for part in one)) for one in parts]

    def map(self) -> npt.NDArray[np.float32]:
        """Return the ensemble's Grad-CAM map, [H, W], in 0..1."""
        return ensemble_map(self.gradcams, self.probabilities, *self.shape)


def _find_folder(name: Path | str) -> Path:
    """Return the folder itself, or that of the ensemble with this name."""
    folder = Path(name)
    if isinstance(name, Path) or folder.is_dir() or folder.name != name:
        return folder
    return locations.find_by_name(name)


class Ensemble:
    """The networks of an ensemble, loaded, verified and warmed up.

    Created by :meth:`load`. Use an ensemble from one thread at a time.

    Examples
    --------
    >>> with Ensemble.load(path) as ensemble:  # doctest: +SKIP
    ...     for prediction in ensemble.predict(stack):
    ...         print(prediction.label, prediction.probability)
    """

    def __init__(self, manifest: Manifest, digest: str, directory: Path, opened: Opened) -> None:
        self.manifest = manifest
        self.digest = digest
        self.directory = directory
        self.device = opened.executor.device
        self.device_reason = ""  # until it is loaded
        self.precision = opened.precision
        # Compared with fp32 on this machine, in a lower precision.
        self.figures: GateFigures | None = None
        self.rejected: tuple[Rejection, ...] = ()
        # Recorded when the ensemble was exported, or found when it was loaded.
        self.warnings: tuple[str, ...] = manifest.warnings
        # Measured after warm-up, per batch size; always includes 1.
        self.compute_ms: dict[int, float] = {}
        self._networks = opened.networks
        self._executor = opened.executor
        self.names = tuple(network.name for network in manifest.networks)
        channels = manifest.normalization.channels
        self.model_range = IntensityRange(
            np.array([c.low for c in channels], np.float32),
            np.array([c.high for c in channels], np.float32),
            "model",
        )

    @classmethod
    def load(
        cls,
        directory: Path | str,
        *,
        device: Device = "auto",
        precision: PrecisionChoice = "auto",
        gate: GateLimits | None = None,
        threads: int | None = None,
        largest_batch: int = 1,
        batch_within_ms: float = 0.0,
        cancellation: Cancellation | None = None,
    ) -> Ensemble:
        """Load an ensemble: check the hashes of its files, open the networks, warm up, run the test vectors.

        A precision below fp32 is used only if the ensemble passes the gate in it: on this machine, its
        outputs for the reference fields of view must agree with those in fp32. ``precision`` of the ensemble
        is the selected one, and ``rejected`` has the reasons against others.

        Parameters
        ----------
        directory : path or str
            The folder that holds ``ensemble.json``, or the name of an ensemble in the models folder;
            ``senoscope.Ensemble.load("starter")`` builds the starter ensemble if it is missing.
        device : {"auto", "cuda", "cpu"}
            ``auto`` uses a GPU if there is one that works; ``device_reason`` is the reason for the choice.
            ``cuda`` and ``cpu`` require that device.
        precision : {"auto", "fp32", "tf32", "fp16", "int8"}
            ``auto`` uses the fastest that passes the gate. Another one that does not pass is replaced by
            fp32, with a warning.
        gate : GateLimits, optional
            How far outputs may deviate from fp32.
        threads : int, optional
            CPU cores to use; default: all.
        largest_batch : int
            Batches of 2, 4, 8 ... FOVs up to this size are warmed up too: on a GPU the first batch of a size
            needs seconds to select algorithms, during which no live frame could be computed.
        batch_within_ms : float
            Batch sizes that take longer than this, together with one more FOV, are not warmed up.
        cancellation : Cancellation, optional
            Cancels the loading from another thread; its reason is raised.

        Raises
        ------
        EnsembleError
            If a file of the folder is missing or wrong; the message names it.
        DeviceError
            If the configured device cannot be used, or does not offer the precision.
        """
        directory = _find_folder(directory)
        cancellation = cancellation or Cancellation()
        manifest, digest = read_manifest(directory)
        opening = Opening(threads, digest=digest, cancellation=cancellation)
        selection = PrecisionSelection(directory, manifest, gate or GateLimits(), opening)

        def make(opened: Opened) -> Ensemble:
            ensemble = cls(manifest, digest, directory, opened)
            ensemble._warm_up()
            return ensemble

        def check(ensemble: Ensemble) -> None:
            ensemble._measure(largest_batch, batch_within_ms)
            ensemble._run_test_vectors(selection.limits)

        def open_on(row: DeviceRow) -> Ensemble:
            return selection.open(row, precision, make, check)

        ensemble, reason = open_on_device(device, open_on)
        ensemble.device_reason = reason
        ensemble._note_precision(selection, precision)
        try:
            cancellation.finish()
        except BaseException:
            ensemble.close()
            raise
        return ensemble

    def predict(
        self, stack: npt.NDArray[Any], intensity_range: IntensityRange | None = None
    ) -> list[Prediction]:
        """Classify fields of view.

        Parameters
        ----------
        stack : array [N, C, H, W] or [C, H, W], any real dtype
            Raw detector units, channels as in the manifest. All N are computed as one batch.
        intensity_range : IntensityRange, optional
            Default: the manifest's.

        Returns
        -------
        list of N Prediction

        Raises
        ------
        ValueError
            If the shape does not match the manifest, if a value is not a real number, NaN, infinite, masked
            or too large for float32, or if the range is invalid.
        RuntimeError
            If the output of a network is invalid, for example a probability that is not a number.
        """
        expected = self.manifest.input.shape
        image = as_real_numbers(stack)
        if image.ndim == 3:
            image = image[None]
        if image.ndim != 4 or image.shape[1:] != expected or not len(image):
            raise ValueError(
                f"stack has shape {np.shape(stack)}; expected [N, {', '.join(map(str, expected))}]"
            )
        bounds = intensity_range or self.model_range
        bounds.require_valid(expected[0])
        outputs = self._executor.run(image, bounds.low, bounds.high)
        for name, output in zip(self.names, outputs, strict=True):
            if not has_count(output, len(image)):
                raise RuntimeError(f"network {name}: outputs are missing for some fields of view of a batch")
            if has_invalid_values(output):
                problem = problem_of_values(output) or "its output is too large"
                raise RuntimeError(f"network {name}: {problem}")
        return [self._prediction(outputs, n) for n in range(len(image))]

    def _prediction(self, outputs: list[NetworkOutput], n: int) -> Prediction:
        probabilities = np.array([output.probability[n] for output in outputs], np.float32)
        probability = float(probabilities.mean(dtype=np.float64))
        combination = self.manifest.ensemble
        return Prediction(
            probability=probability,
            label=combination.classes[probability > combination.threshold],
            networks=self.names,
            logits=np.array([output.logit[n] for output in outputs], np.float32),
            probabilities=probabilities,
            gradcams=tuple(np.array(output.gradcam[n], np.float32) for output in outputs),
            features=tuple(np.array(output.features[n], np.float32) for output in outputs),
            shape=(self.manifest.input.height, self.manifest.input.width),
        )

    def _note_precision(self, selection: PrecisionSelection, wanted: PrecisionChoice) -> None:
        self.figures, self.rejected = selection.figures, tuple(selection.rejected)
        surprising = [one for one in self.rejected if one.found_at == "load" or one.precision == wanted]
        self.warnings += tuple(one.text(self.precision) for one in surprising)

    @property
    def fp32_networks(self) -> tuple[str, ...]:
        """Names of the networks that run in fp32."""
        return tuple(network.name for network in self._networks if network.precision == "fp32")

    def _middle_image(self) -> npt.NDArray[np.float32]:
        middle = ((self.model_range.low + self.model_range.high) / 2)[None, :, None, None]
        return np.broadcast_to(middle, (1, *self.manifest.input.shape)).astype(np.float32)

    def _warm_up(self) -> None:
        self._executor.warm_up(self._middle_image(), self.model_range.low, self.model_range.high)

    def _measure(self, largest_batch: int, within_ms: float) -> None:
        image, low, high = self._middle_image(), self.model_range.low, self.model_range.high
        check_outputs(self._executor.run(image, low, high), self._networks, 1)
        self.compute_ms[1] = self._timed(image)
        size = 2
        while size <= largest_batch and 2 * self.compute_ms[size // 2] + self.compute_ms[1] <= within_ms:
            batch = np.repeat(image, size, axis=0)
            self._timed(batch)
            self.compute_ms[size] = self._timed(batch)
            size *= 2

    def _timed(self, image: npt.NDArray[np.float32]) -> float:
        start = time.perf_counter()
        self._executor.run(image, self.model_range.low, self.model_range.high)
        return (time.perf_counter() - start) * 1e3

    def keep_warm(self) -> None:
        """Do a little work so that the device does not lower its clocks between two frames."""
        self._executor.keep_warm()

    @property
    def cools_down(self) -> bool:
        """Whether :meth:`keep_warm` has an effect on this device."""
        return self._executor.cools_down

    def _run_test_vectors(self, limits: GateLimits) -> None:
        """Compare outputs with those expected; in lower precisions the gate does that with its own limits."""
        predictions: list[Prediction] = []
        for vector in self.manifest.test_vectors:
            path = self.directory / vector.file
            pixels = as_real_numbers(np.array(read_fovs(path, self.manifest.input.shape, "a test vector")))
            (prediction,) = self.predict(pixels)
            predictions.append(prediction)
            if self.precision == "fp32":
                self._compare(path, prediction, vector)
            if len(predictions) == 1:  # one batch is enough: the graph is the same for all vectors
                self._check_batch(pixels, prediction, vector, limits)
        self.warnings = (*self.manifest.warnings, *self._blank_networks(predictions))

    def _compare(self, path: Path, prediction: Prediction, vector: TestVector) -> None:
        expected = vector.expected
        values = zip(self.names, map(float, prediction.probabilities), strict=True)
        compared = [(name, value, expected.networks[name]) for name, value in values]
        compared.append(("the ensemble", prediction.probability, expected.probability))
        for name, value, wanted in compared:
            if not abs(value - wanted) <= vector.tolerance:
                raise EnsembleError(
                    path,
                    f"{name} gives {value:.6f} on {self.device}, expected {wanted:.6f} "
                    f"+- {vector.tolerance:g}: this machine does not reproduce the trained ensemble",
                )
        for name, gradcam in zip(self.names, prediction.gradcams, strict=True):
            grid = (expected.gradcams or {}).get(name)
            if grid is not None:
                self._compare_maps(path, name, gradcam, np.array(grid, np.float32), vector)

    def _check_batch(
        self,
        pixels: npt.NDArray[np.float32],
        prediction: Prediction,
        vector: TestVector,
        limits: GateLimits,
    ) -> None:
        """Check that a vector and another field of view give the same outputs in a batch as alone."""
        low, high = self.model_range.low, self.model_range.high
        # The vector, mirrored and brighter: with a similar one, a graph that uses the mean would pass.
        other = pixels[:, :, ::-1] / 2 + high[:, None, None] / 2
        pair = np.ascontiguousarray(np.stack([pixels, other]), np.float32)
        alone = prediction.outputs(), self._executor.run(pair[1:], low, high)
        batch = self._executor.run(pair, low, high)
        tolerance, gradcam_tolerance = vector.tolerance, vector.gradcam_tolerance
        if self.precision != "fp32":  # a batch may be computed by other kernels, which round differently
            own = limits.for_network(len(self._networks))
            tolerance = max(tolerance, own.max_abs_probability)
            gradcam_tolerance = max(gradcam_tolerance, 1 - own.min_gradcam_iou)
        check_batch(alone, batch, self._networks, tolerance, gradcam_tolerance)

    def _compare_maps(
        self,
        path: Path,
        name: str,
        gradcam: npt.NDArray[np.float32],
        wanted: npt.NDArray[np.float32],
        vector: TestVector,
    ) -> None:
        peak = float(wanted.max())
        apart = float(np.abs(gradcam - wanted).max())
        if not apart <= vector.gradcam_tolerance * peak + np.finfo(np.float32).tiny:
            raise EnsembleError(
                path,
                f"the Grad-CAM map of {name} differs by {apart:.3g} on {self.device} from the expected one, "
                f"whose maximum is {peak:.3g}; at most {vector.gradcam_tolerance:g} of that is allowed: this "
                "machine does not reproduce the trained ensemble",
            )

    def _blank_networks(self, predictions: list[Prediction]) -> Iterator[str]:
        """Yield a warning for each blank network on the test vectors, unless the manifest has one."""
        for k, name in enumerate(self.names):
            reason = blank_reason(
                [prediction.logits[k] for prediction in predictions],
                [prediction.gradcams[k].max(initial=0) for prediction in predictions],
            )
            known = (f"{name} ", f"{name}:")
            if reason and not any(warning.startswith(known) for warning in self.manifest.warnings):
                yield f"{name} {reason} among the test vectors: it may not distinguish the classes"

    def describe(self) -> EngineFacts:
        """Return the device, why it was selected, the precision, and how the networks are distributed."""
        return {
            "device": self.device,
            "reason": self.device_reason,
            "precision": self.precision,
            "fp32_networks": [] if self.precision == "fp32" else list(self.fp32_networks),
            "gate": None if self.figures is None else self.figures.facts(),
            "rejected": [one.facts() for one in self.rejected],
            "compute_ms": round(self.compute_ms[1], 3),
            "batch_sizes": sorted(self.compute_ms),
            "warnings": list(self.warnings),
            **self._executor.describe(),
        }

    def close(self) -> None:
        """Interrupt a run in progress, and release threads and device memory."""
        self._executor.close()

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
