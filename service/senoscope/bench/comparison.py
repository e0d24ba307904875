"""What changed on a machine since it was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from senoscope.bench.machine import Machine
from senoscope.bench.passport import Passport


class InUse(NamedTuple):
    """The ensemble in use, and how it is computed."""

    digest: str
    device: str
    precision: str


def changes_since(passport: Passport, machine: Machine, in_use: InUse | None) -> list[str]:
    """Return what differs from the time of the passport, each as ``what: then -> now``.

    Parameters
    ----------
    machine : Machine
        This machine, now.
    in_use : InUse or None
        None if the ensemble cannot be loaded: it is then not compared.
    """
    pairs = [*_of_machine(passport.machine, machine)]
    if in_use is not None:
        then = passport.ensemble
        pairs += [
            (f"ensemble {then.name}", then.digest[:12], in_use.digest[:12]),
            ("device", passport.device, in_use.device),
            ("precision", passport.precision, in_use.precision),
        ]
    return [f"{what}: {_text(before)} -> {_text(now)}" for what, before, now in pairs if before != now]


def _of_machine(then: Machine, now: Machine) -> Iterator[tuple[str, object, object]]:
    yield "CPU", then.cpu, now.cpu
    yield "usable cores", then.cores, now.cores
    yield "governor", then.governor, now.governor
    yield "GPU", then.gpu and then.gpu.name, now.gpu and now.gpu.name
    if then.gpu is not None and now.gpu is not None:
        yield "driver", then.gpu.driver, now.gpu.driver
        for clock in sorted({*then.gpu.max_clocks_mhz, *now.gpu.max_clocks_mhz}):
            before, after = (gpu.max_clocks_mhz.get(clock) for gpu in (then.gpu, now.gpu))
            yield f"highest {clock} clock in MHz", before, after
        yield "power limit in W", then.gpu.power_limit_w, now.gpu.power_limit_w
    for package in sorted({*then.versions, *now.versions}):
        yield package, then.versions.get(package), now.versions.get(package)


def _text(value: object) -> str:
    return "none" if value is None else str(value)
