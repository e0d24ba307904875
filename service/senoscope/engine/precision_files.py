"""The files of an ensemble for a precision: which of them may be tried, and their verification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from senoscope.engine.cancellation import Cancellation
from senoscope.engine.errors import EnsembleError
from senoscope.engine.executor import NetworkFile, RejectionFacts
from senoscope.engine.gate import GateLimits
from senoscope.engine.manifest import MANIFEST_NAME, Manifest, Network, verify_file
from senoscope.engine.manifest_variants import Agreement
from senoscope.engine.onnx_file import refuse_external_data
from senoscope.engine.precision import FILES, Precision
from senoscope.engine.reference_fovs import ReferenceFovs, read_reference

_REMEDY: Final = "make them with `senoscope-train variants`"


@dataclass(frozen=True)
class Rejection:
    """A precision that is not used, and why.

    Attributes
    ----------
    network : str or None
        The network that does not use it; None: the whole ensemble.
    found_at : {"export", "load"}
        Whether ``ensemble.json`` states it, or it was found on this machine.
    """

    precision: Precision
    network: str | None
    reasons: tuple[str, ...]
    found_at: Literal["export", "load"]

    def facts(self) -> RejectionFacts:
        """Return it as plain values."""
        return {
            "precision": self.precision,
            "network": self.network,
            "reasons": list(self.reasons),
            "found_at": self.found_at,
        }

    def text(self, used: Precision) -> str:
        """Return the rejection in words; ``used`` is the precision that was selected."""
        why = "; ".join(self.reasons)
        if self.network is None:
            return f"{self.precision} was rejected, the ensemble runs in {used}: {why}"
        instead = ", which runs in fp32" if used == self.precision else ""
        return f"{self.precision} was rejected for {self.network}{instead}: {why}"


class PrecisionFiles:
    """The files of an ensemble; each is verified before its first use, and only then."""

    def __init__(
        self, directory: Path, manifest: Manifest, limits: GateLimits, cancellation: Cancellation
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._of_name = {network.name: network for network in manifest.networks}
        self._limits = limits
        self._cancellation = cancellation
        self._verified: set[tuple[Path, str]] = set()
        self._reference: ReferenceFovs | None = None

    def fp32(self) -> list[NetworkFile]:
        """Return the fp32 file of each network."""
        return [self._file(network, "fp32") for network in self._manifest.networks]

    def replaced(self, networks: Sequence[NetworkFile], names: Iterable[str]) -> list[NetworkFile]:
        """Return the networks, the named ones by their fp32 files."""
        wanted = set(names)
        return [self._file(self._of_name[n.name], "fp32") if n.name in wanted else n for n in networks]

    def require(self, networks: Sequence[NetworkFile]) -> None:
        """Verify test vectors and networks.

        Raises
        ------
        EnsembleError
            If one is missing, changed, or does not contain all its weights.
        """
        vectors = [(self._directory / one.file, one.sha256) for one in self._manifest.test_vectors]
        for faults in (self._faults(vectors), self._faults_of(networks)):
            for error in faults.values():
                raise error

    def reference(self) -> ReferenceFovs:
        """Return the reference fields of view.

        Raises
        ------
        EnsembleError
            If a file of them is missing, changed or wrong.
        """
        if self._reference is None:
            reference = self._manifest.reference
            if reference is None:
                raise EnsembleError(self._directory / MANIFEST_NAME, "has no reference fields of view")
            for file, sha256 in (
                (reference.file, reference.sha256),
                (reference.expected, reference.expected_sha256),
            ):
                verify_file(self._directory / file, sha256, self._cancellation.require)
            self._reference = read_reference(self._directory, self._manifest, reference)
        return self._reference

    def lower(self, precision: Precision) -> tuple[list[NetworkFile], list[Rejection]]:
        """Return the networks to try in a lower precision, and those that may not be tried in it.

        Returns
        -------
        networks : list of NetworkFile
            Those that were rejected by their fp32 files; empty if none is left.
        rejected : list of Rejection
        """
        reason = self._exported_problem(precision)
        if reason:
            return [], [Rejection(precision, None, reason, "export")]
        rejected = [
            Rejection(precision, network.name, reasons, "export")
            for network in self._manifest.networks
            if (reasons := self._exported_problem_of(network, precision))
        ]
        kept = {one.name for one in self._manifest.networks} - {one.network for one in rejected}
        if kept:
            try:
                self.reference()
            except EnsembleError as error:
                self._cancellation.require()
                return [], [*rejected, Rejection(precision, None, (_short(error),), "load")]
        networks = [
            self._file(network, precision if network.name in kept else "fp32")
            for network in self._manifest.networks
        ]
        if FILES[precision] != "fp32":
            faults = self._faults_of([one for one in networks if one.precision == precision])
            faulty = [one for one in networks if one.path in faults]
            rejected += [Rejection(precision, n.name, (_short(faults[n.path]),), "load") for n in faulty]
            networks = self.replaced(networks, [one.name for one in faulty])
        if all(one.precision == "fp32" for one in networks):
            return [], [*rejected, Rejection(precision, None, ("no network passed",), rejected[-1].found_at)]
        return networks, rejected

    def _exported_problem(self, precision: Precision) -> tuple[str, ...]:
        """Return why the manifest excludes a precision for the whole ensemble; empty if it does not."""
        wanted, reference = FILES[precision], self._manifest.reference
        made = {v.precision for n in self._manifest.networks for v in n.variants}
        rejected = {v.precision for n in self._manifest.networks for v in n.rejected_variants}
        if wanted not in made | rejected:
            return (f"this ensemble has no {wanted} files; {_REMEDY}",)
        if reference is None:
            return (f"this ensemble has no reference fields of view to check it with; {_REMEDY}",)
        if wanted == "fp32" or wanted not in made:  # in the second case, each network has its own reasons
            return ()
        return self._judged(reference.agreement.get(wanted), self._limits)

    def _exported_problem_of(self, network: Network, precision: Precision) -> tuple[str, ...]:
        """Return why the manifest excludes a precision for a network; empty if it does not."""
        wanted = FILES[precision]
        if wanted == "fp32":
            return ()
        variant = network.variant(wanted)
        if variant is None:
            stated = [one.reasons for one in network.rejected_variants if one.precision == wanted]
            return stated[0] if stated else (f"it has no {wanted} file",)
        limits = self._limits.for_network(len(self._manifest.networks))
        return self._judged(variant.parity.agreement, limits)

    @staticmethod
    def _judged(agreement: Agreement | None, limits: GateLimits) -> tuple[str, ...]:
        if agreement is None:
            return (f"{MANIFEST_NAME} does not state how far it deviates from fp32",)
        return limits.reasons(agreement)

    def _file(self, network: Network, precision: Precision) -> NetworkFile:
        variant = network.variant(FILES[precision])
        if variant is None:
            problem = f"network {network.name} has no {FILES[precision]} variant"
            raise EnsembleError(self._directory / MANIFEST_NAME, problem)
        return NetworkFile(
            network.name,
            self._directory / variant.file,
            network.gradcam_grid,
            network.feature_size,
            self._manifest.input.shape,
            precision,
        )

    def _faults_of(self, networks: Sequence[NetworkFile]) -> dict[Path, EnsembleError]:
        """Return the files of networks that are missing, changed, or do not contain all weights."""
        entries = []
        for one in networks:
            variant = self._of_name[one.name].variant(FILES[one.precision])
            entries.append((one.path, "" if variant is None else variant.sha256))
        return self._faults(entries, refuse_external_data)

    def _faults(
        self, entries: Sequence[tuple[Path, str]], check: Callable[[Path], object] = lambda _: None
    ) -> dict[Path, EnsembleError]:
        """Return the faults of files with these hashes, in order."""

        def fault(entry: tuple[Path, str]) -> EnsembleError | None:
            if entry in self._verified:
                return None
            try:
                self._cancellation.require()
                verify_file(*entry, self._cancellation.require)
                check(entry[0])
            except EnsembleError as error:
                self._cancellation.require()
                return error
            self._verified.add(entry)
            return None

        with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter lock
            found = list(pool.map(fault, entries))
        return {path: error for (path, _), error in zip(entries, found, strict=True) if error is not None}


def _short(error: EnsembleError) -> str:
    """Return an error without the folder, which clients of a service must not learn."""
    return f"{error.path.name}: {error.problem}"
