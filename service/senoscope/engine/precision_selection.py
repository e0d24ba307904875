"""Selects the precision in which an ensemble is computed: the gate decides on this machine.

Whatever cannot be proved runs in fp32: a network of which the file or the outputs in a lower precision are
faulty runs in fp32 alone; if the ensemble deviates too far, all of it does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from senoscope.engine.contract import check_outputs
from senoscope.engine.devices import DeviceRow
from senoscope.engine.errors import DeviceError, EnsembleError
from senoscope.engine.executor import Executor, Float32, NetworkFile, Opening
from senoscope.engine.gate import GateFigures, GateLimits, GateOutputs, compare_with_fp32
from senoscope.engine.intensity import as_real_numbers
from senoscope.engine.manifest import Manifest
from senoscope.engine.precision import ONLY_ON_REQUEST, Precision, PrecisionChoice
from senoscope.engine.precision_files import PrecisionFiles, Rejection
from senoscope.engine.reference_fovs import ReferenceFovs

_T = TypeVar("_T")


@dataclass(frozen=True)
class Opened:
    """Networks that were opened on a device in a precision."""

    networks: tuple[NetworkFile, ...]
    executor: Executor
    precision: Precision


class _Failed(Exception):
    """Networks, or else the ensemble, failed in a lower precision; only within this module.

    Attributes
    ----------
    networks : dict of str to tuple of str
        The reasons of each network.
    ensemble : tuple of str
        Reasons that concern all of it.
    compared : bool
        Whether their outputs were compared with fp32.
    """

    def __init__(
        self,
        networks: dict[str, tuple[str, ...]],
        ensemble: tuple[str, ...] = (),
        *,
        compared: bool = False,
    ) -> None:
        super().__init__(networks, ensemble)
        self.networks = networks
        self.ensemble = ensemble
        self.compared = compared


def precisions_to_try(row: DeviceRow, choice: PrecisionChoice) -> tuple[Precision, ...]:
    """Return the precisions to try on a device, in order; the last is fp32.

    Raises
    ------
    DeviceError
        If the device does not offer the required precision.
    """
    if choice == "auto":
        faster = row.precisions[: row.precisions.index("fp32")]
        return (*(precision for precision in faster if precision not in ONLY_ON_REQUEST), "fp32")
    if choice not in row.precisions:
        offered = ", ".join(row.precisions)
        raise DeviceError(f"--precision {choice}: {row.title} offers {offered}; choose one of them, or auto")
    return (choice,) if choice == "fp32" else (choice, "fp32")


class PrecisionSelection:
    """Opens an ensemble in the first precision that passes the gate.

    Parameters
    ----------
    limits : GateLimits
        How far the ensemble may deviate from fp32.
    opening : Opening
        Its precision is replaced; its cancellation must be set.

    Attributes
    ----------
    limits : GateLimits
    figures : GateFigures or None
        Measured on this machine in the selected precision; None in fp32.
    rejected : list of Rejection
        In the precisions that were tried.
    """

    def __init__(self, directory: Path, manifest: Manifest, limits: GateLimits, opening: Opening) -> None:
        if opening.cancellation is None:
            raise ValueError("the opening has no cancellation")
        self._directory = directory
        self._manifest = manifest
        self.limits = limits
        self._opening = opening
        self._cancellation = opening.cancellation
        self._files = PrecisionFiles(directory, manifest, limits, opening.cancellation)
        self.figures: GateFigures | None = None
        self.rejected: list[Rejection] = []

    def open(
        self,
        row: DeviceRow,
        choice: PrecisionChoice,
        make: Callable[[Opened], _T],
        check: Callable[[_T], None],
    ) -> _T:
        """Open the ensemble on a device.

        Parameters
        ----------
        make : callable
            Returns what runs opened networks, warmed up.
        check : callable
            Checks its outputs for anything but their agreement with fp32; called after the gate.

        Raises
        ------
        DeviceError
            If the device does not offer the required precision, or cannot run the networks.
        EnsembleError
            If a file that is needed in any precision is missing or wrong.
        """
        self.figures, self.rejected = None, []
        *lower, _ = precisions_to_try(row, choice)
        for precision in lower:
            made = self._open_lower(row, precision, make, check)
            if made is not None:
                return made
        networks = self._files.fp32()
        self._files.require(networks)
        return self._attempt(row, "fp32", networks, make, check)

    def _open_lower(
        self,
        row: DeviceRow,
        precision: Precision,
        make: Callable[[Opened], _T],
        check: Callable[[_T], None],
    ) -> _T | None:
        """Open the ensemble in a lower precision, or return None; networks that fail are replaced by fp32."""
        networks, rejected = self._files.lower(precision)
        self.rejected += rejected
        compared = False
        while any(network.precision == precision for network in networks):
            self._files.require(networks)
            try:
                return self._attempt(row, precision, networks, make, check)
            except Exception as error:
                self._cancellation.require()
                failed = _failure(error, row, precision, networks)
            for name, reasons in failed.networks.items():
                self._reject(precision, name, reasons)
            if not failed.networks or (compared and failed.compared):
                again = ("networks fail also after others were replaced by fp32",)
                self._reject(precision, None, failed.ensemble or again)
                return None
            compared = compared or failed.compared
            networks = self._files.replaced(networks, failed.networks)
        if networks:
            self._reject(precision, None, ("no network passed",))
        return None

    def _reject(self, precision: Precision, network: str | None, reasons: tuple[str, ...]) -> None:
        # Clients of a service see the reasons; ONNX Runtime puts paths of this machine into its messages.
        shown = tuple(reason.replace(f"{self._directory}{os.sep}", "") for reason in reasons)
        self.rejected.append(Rejection(precision, network, shown, "load"))

    def _attempt(
        self,
        row: DeviceRow,
        precision: Precision,
        networks: Sequence[NetworkFile],
        make: Callable[[Opened], _T],
        check: Callable[[_T], None],
    ) -> _T:
        self._cancellation.require()
        with ExitStack() as on_error:
            executor = row.open(networks, replace(self._opening, precision=precision))
            on_error.callback(executor.close)
            opened = Opened(tuple(networks), executor, precision)
            try:
                made = make(opened)
                figures = None if precision == "fp32" else self._gate(opened)
                check(made)
            except (_Failed, EnsembleError, DeviceError):
                raise
            except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
                self._cancellation.require()
                if precision != "fp32":
                    raise
                problem = f"its networks cannot be run on {executor.device}: {error}"
                raise EnsembleError(self._directory, problem) from error
            on_error.pop_all()
        self.figures = figures
        return made

    def _gate(self, opened: Opened) -> GateFigures:
        """Compare the outputs for the reference fields of view with those in fp32."""
        reference = self._files.reference()
        figures = compare_with_fp32(
            reference.expected,
            _run_reference(opened, reference, self._manifest),
            shape=self._manifest.input.shape[1:],
            threshold=self._manifest.ensemble.threshold,
            limits=self.limits,
            labels=reference.labels,
        )
        limits = self.limits.for_network(len(opened.networks))
        failed = {name: why for name, found in figures.networks.items() if (why := limits.reasons(found))}
        for network in opened.networks:
            if network.precision == "fp32" and network.name in failed:
                text = "; ".join(failed[network.name])
                problem = f"{network.name} does not reproduce the reference in fp32 either: {text}"
                raise _Failed({}, (problem,), compared=True)
        reasons = self.limits.reasons(figures.ensemble)
        if failed or reasons:
            raise _Failed(failed, reasons, compared=True)
        return figures


def _run_reference(opened: Opened, reference: ReferenceFovs, manifest: Manifest) -> GateOutputs:
    channels = manifest.normalization.channels
    low = np.array([channel.low for channel in channels], np.float32)
    high = np.array([channel.high for channel in channels], np.float32)
    probabilities: dict[str, list[np.float32]] = {network.name: [] for network in opened.networks}
    gradcams: dict[str, list[Float32]] = {network.name: [] for network in opened.networks}
    for n, fov in enumerate(reference.fovs):
        outputs = opened.executor.run(as_real_numbers(np.array(fov[None])), low, high)
        invalid: dict[str, tuple[str, ...]] = {}
        for network, output in zip(opened.networks, outputs, strict=True):
            try:
                check_outputs([output], [network], 1)
            except EnsembleError as error:
                invalid[network.name] = (f"{error.problem}, for reference field of view {n}",)
            else:
                probabilities[network.name].append(output.probability[0])
                gradcams[network.name].append(np.array(output.gradcam[0]))
        if invalid:
            raise _Failed(invalid)
    return GateOutputs(
        {name: np.array(values, np.float32) for name, values in probabilities.items()},
        {name: np.stack(maps) for name, maps in gradcams.items()},
    )


def _failure(
    error: Exception, row: DeviceRow, precision: Precision, networks: Sequence[NetworkFile]
) -> _Failed:
    """Return what failed in a lower precision; raises errors that fp32 would raise, too."""
    if isinstance(error, _Failed):
        return error
    if not isinstance(error, EnsembleError):
        return _Failed({}, (f"it cannot be run on {row.title}: {error}",))
    for network in networks:
        if network.path == error.path and network.precision == precision:
            return _Failed({network.name: (error.problem,)})
    raise error
