"""An ensemble as a library: computes probabilities and Grad-CAM maps from arrays of raw counts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
from senoscope.engine.devices import Device, open_executor
from senoscope.engine.errors import DeviceError, EnsembleError
from senoscope.engine.executor import EngineFacts, Executor, NetworkFile, NetworkOutput, Opening, Pixels
from senoscope.engine.gradcam import ensemble_map
from senoscope.engine.intensity import IntensityRange, as_real_numbers
from senoscope.engine.manifest import MANIFEST_NAME, Manifest, TestVector, read_manifest, verify_file
from senoscope.engine.onnx_file import refuse_external_data


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

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        directory: Path,
        networks: Sequence[NetworkFile],
        executor: Executor,
        device_reason: str,
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        self.directory = directory
        self.device = executor.device
        self.device_reason = device_reason
        # Recorded when the ensemble was exported, or found on its test vectors.
        self.warnings: tuple[str, ...] = manifest.warnings
        # Measured after warm-up, per batch size; always includes 1.
        self.compute_ms: dict[int, float] = {}
        self._networks = tuple(networks)
        self._executor = executor
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
        threads: int | None = None,
        largest_batch: int = 1,
        batch_within_ms: float = 0.0,
        cancellation: Cancellation | None = None,
    ) -> Ensemble:
        """Load an ensemble: check every file's hash, open the networks, warm up, run the test vectors.

        Parameters
        ----------
        directory : path or str
            The folder that holds ``ensemble.json``, or the name of an ensemble in the models folder;
            ``senoscope.Ensemble.load("starter")`` builds the starter ensemble if it is missing.
        device : {"auto", "cuda", "tensorrt-rtx", "openvino", "cpu"}
            ``auto`` uses CUDA if there is a GPU that works, else the CPU; ``device_reason`` is the reason for
            the choice. The others require that device.
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
            If the configured device cannot be used.
        """
        directory = _find_folder(directory)
        cancellation = cancellation or Cancellation()
        manifest, digest = read_manifest(directory)
        networks = []
        to_verify: list[tuple[str, str]] = [(v.file, v.sha256) for v in manifest.test_vectors]
        for network in manifest.networks:
            variant = network.variant("fp32")
            if variant is None:
                raise EnsembleError(directory / MANIFEST_NAME, f"network {network.name} has no fp32 variant")
            to_verify.append((variant.file, variant.sha256))
            path, shape = directory / variant.file, manifest.input.shape
            networks.append(
                NetworkFile(network.name, path, network.gradcam_grid, network.feature_size, shape)
            )

        def verify(entry: tuple[str, str]) -> None:
            cancellation.require()
            verify_file(directory / entry[0], entry[1], cancellation.require)

        with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter lock
            list(pool.map(verify, to_verify))
        for one in networks:
            refuse_external_data(one.path)
        cancellation.require()
        executor, reason = open_executor(networks, device, Opening(threads, "fp32", digest, cancellation))
        ensemble = cls(manifest, digest, directory, networks, executor, reason)
        with ExitStack() as on_error:
            on_error.callback(ensemble.close)
            try:
                ensemble._warm_up(largest_batch, batch_within_ms)
                ensemble._run_test_vectors()
                cancellation.finish()
            except (EnsembleError, DeviceError):
                raise
            except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
                cancellation.require()
                problem = f"its networks cannot be run on {executor.device}: {error}"
                raise EnsembleError(directory, problem) from error
            on_error.pop_all()
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

    def _warm_up(self, largest_batch: int, within_ms: float) -> None:
        low, high = self.model_range.low, self.model_range.high
        middle = ((low + high) / 2)[None, :, None, None]
        image = np.broadcast_to(middle, (1, *self.manifest.input.shape)).astype(np.float32)
        self._executor.warm_up(image, low, high)
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

    def _run_test_vectors(self) -> None:
        predictions: list[Prediction] = []
        for vector in self.manifest.test_vectors:
            path = self.directory / vector.file
            pixels = self._read_test_vector(path)
            (prediction,) = self.predict(pixels)
            predictions.append(prediction)
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
            if len(predictions) == 1:  # one batch is enough: the graph is the same for all vectors
                self._check_batch(pixels, prediction, vector)
        self.warnings = (*self.manifest.warnings, *self._blank_networks(predictions))

    def _check_batch(self, pixels: Pixels, prediction: Prediction, vector: TestVector) -> None:
        """Check that a vector and another field of view give the same outputs in a batch as alone."""
        low, high = self.model_range.low, self.model_range.high
        # The vector, mirrored and brighter: with a similar one, a graph that uses the mean would pass.
        other = pixels[:, :, ::-1] / 2 + high[:, None, None] / 2
        pair = np.ascontiguousarray(np.stack([pixels, other]), np.float32)
        alone = prediction.outputs(), self._executor.run(pair[1:], low, high)
        batch = self._executor.run(pair, low, high)
        check_batch(alone, batch, self._networks, vector.tolerance, vector.gradcam_tolerance)

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

    def _read_test_vector(self, path: Path) -> Pixels:
        shape = self.manifest.input.shape
        try:
            # Memory-mapped, so that a header with a huge shape allocates nothing.
            array = np.lib.format.open_memmap(path, mode="r")
            if array.dtype.kind not in "uif" or array.shape != shape:
                raise ValueError(f"it is {array.dtype} {array.shape}; expected numbers of shape {shape}")
            return as_real_numbers(np.array(array))
        except (ValueError, OSError, EOFError) as error:
            raise EnsembleError(path, f"cannot be used as a test vector: {error}") from error

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
        """Return the device, why it was selected, and how the networks are distributed on it."""
        return {
            "device": self.device,
            "reason": self.device_reason,
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
