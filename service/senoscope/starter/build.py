"""Build of the starter ensemble: complete or not at all, also with interruptions and concurrent builds."""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock

from senoscope.engine.errors import EnsembleError
from senoscope.engine.manifest import MANIFEST_NAME, Manifest, Network
from senoscope.starter import STARTER_NAME
from senoscope.starter.onnx_file import network_size, write_network
from senoscope.starter.recipe import VECTORS_NAME, NetworkRecipe

Progress = Callable[[int, int], object]
_LOCK_NAME: Final = f".{STARTER_NAME}.lock"
_PARTIAL_PREFIX: Final = f".{STARTER_NAME}-partial-"
_WORKERS: Final = 4  # more would wait for the disk


class StarterError(EnsembleError):
    """The starter ensemble could not be built; all temporary files were removed."""


def build_starter(
    models_dir: Path,
    progress: Progress = lambda _done, _total: None,
    recipe: Path | Traversable | None = None,
) -> Path:
    """Build the starter ensemble in ``models_dir`` if it is missing, and return its folder.

    The folder gets its final name when it is complete and its hashes are correct. If another process is
    building the ensemble, this function waits for it. Files left by a killed process are removed.

    Parameters
    ----------
    progress : callable
        Called with the bytes written so far and their total, from several threads, one at a time.
    recipe : Path, optional
        Folder of another recipe than that of the package.

    Raises
    ------
    StarterError
        If the folder cannot be written, the disk is full, or the built files do not match the recipe.
    """
    target = models_dir / STARTER_NAME
    recipe = recipe or recipe_folder()
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(models_dir / _LOCK_NAME):
            if (target / MANIFEST_NAME).is_file():
                return target
            for leftover in models_dir.glob(
                f"{_PARTIAL_PREFIX}*"
            ):  # its process has ended: the lock is held here
                shutil.rmtree(leftover, ignore_errors=True)
            _require_vacant(target)
            partial = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=models_dir))
            try:
                partial.chmod(0o755)  # mkdtemp creates private folders
                build_from(recipe, partial, progress)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        raise StarterError(target, _explain(error, models_dir, recipe)) from error
    return target


def recipe_folder() -> Traversable:
    """Return the folder of the package's recipe."""
    return files("senoscope.starter") / "recipe_data"


def build_from(
    recipe: Path | Traversable, directory: Path, progress: Progress = lambda _done, _total: None
) -> None:
    """Build an ensemble from a recipe's folder into an empty directory.

    Raises
    ------
    StarterError
        If a built file does not have the hash of the recipe's manifest.
    OSError
    """
    manifest = _read_manifest(recipe)
    recipes = [NetworkRecipe.load(recipe / f"{network.name}.zip") for network in manifest.networks]
    total, done = sum(map(network_size, recipes)), 0
    counting = threading.Lock()

    def wrote(count: int) -> None:
        nonlocal done
        with counting:
            done += count
            progress(min(done, total), total)

    def build(network: Network, how: NetworkRecipe) -> None:
        (variant,) = network.variants
        digest = write_network(how, directory / variant.file, wrote)
        if digest != variant.sha256:
            raise StarterError(
                directory / variant.file,
                f"the built file has SHA-256 {digest}, the recipe lists {variant.sha256}; NumPy "
                f"{np.__version__} generates other random numbers than earlier versions, or the recipe is "
                "damaged. Please report this",
            )

    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="starter")
    try:
        # The largest first, which keeps all workers busy until the end.
        order = sorted(range(len(recipes)), key=lambda k: -network_size(recipes[k]))
        running = [pool.submit(build, manifest.networks[k], recipes[k]) for k in order]
        for job in running:
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)
    with (recipe / VECTORS_NAME).open("rb") as file, zipfile.ZipFile(file) as vectors:
        for vector in manifest.test_vectors:
            (directory / vector.file).write_bytes(vectors.read(vector.file))
    # Written last: without it the folder is not an ensemble.
    (directory / MANIFEST_NAME).write_bytes((recipe / MANIFEST_NAME).read_bytes())


def _require_vacant(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()  # Windows cannot rename to an existing folder
    if target.exists() or target.is_symlink():
        raise StarterError(
            target,
            f"the starter ensemble cannot be built: this exists, but has no {MANIFEST_NAME}: remove it",
        )


def _explain(error: Exception, models_dir: Path, recipe: Path | Traversable) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    remedy = "select another folder with --models-dir or SENOSCOPE_MODELS_DIR"
    if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        networks = _read_manifest(recipe).networks
        needed = sum(variant.bytes for network in networks for variant in network.variants) / 1e6
        return f"the starter ensemble needs {needed:.0f} MB in {models_dir}: {reason}; {remedy}"
    return f"the starter ensemble cannot be built in {models_dir}: {reason}; {remedy}"


def _read_manifest(recipe: Path | Traversable) -> Manifest:
    return Manifest.model_validate_json((recipe / MANIFEST_NAME).read_text(encoding="utf-8"))
