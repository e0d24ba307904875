"""Errors of loading and running an ensemble."""

from __future__ import annotations

from pathlib import Path


class EnsembleError(Exception):
    """An ensemble cannot be used; the message names the file and what is wrong with it.

    Parameters
    ----------
    path : Path
        The file or folder that cannot be used.
    problem : str
        What is wrong, and the remedy.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class DeviceError(Exception):
    """The configured device cannot run the ensemble; there is no silent fallback to another one."""
