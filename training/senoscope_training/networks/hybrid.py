"""Hybrid TL/ML: PCA and a polynomial support vector machine on the pooled features of a frozen network."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from senoscope_training.networks.settings import HybridConfig

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Votes:
    """The predictions of the support vector machine, True for positive."""

    votes: npt.NDArray[np.bool_]
    """Prediction for each test FOV."""
    chosen: dict[str, float]
    """``C``, ``gamma`` and ``degree``."""
    validation_accuracy: float
    """Accuracy of the cross-validation with these parameters."""
    fovs: npt.NDArray[np.int64]
    """Index of the FOV of each training example."""
    cross_validated: npt.NDArray[np.bool_]
    """Prediction for each training example by a machine that was not trained on its FOV."""

    def of_originals(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return training FOVs, ascending, and the cross-validated prediction for their first examples."""
        fovs, first = np.unique(self.fovs, return_index=True)
        return fovs, self.cross_validated[first]


def train_hybrid(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.bool_],
    fovs: npt.NDArray[np.int64],
    test: npt.NDArray[np.float32],
    config: HybridConfig,
    seed: int,
) -> Votes:
    """Choose the parameters by cross-validation, fit to all training examples, and predict the test FOVs.

    Parameters
    ----------
    features, test : float32 array [M, C], [N, C]
        Pooled features of training FOVs and their copies, and of the test FOVs.
    fovs : int64 array [M]
        Index of the FOV of each example; copies of a FOV are never on both sides of a fold. Each original
        comes before its copies.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    rarer = min(len(np.unique(fovs[labels])), len(np.unique(fovs[~labels])))
    folds = StratifiedGroupKFold(min(config.cv_folds, rarer), shuffle=True, random_state=seed)
    grid = list(itertools.product(config.c, config.gamma, config.degree))
    predicted = np.zeros((len(grid), len(labels)), np.bool_)
    for inside, outside in folds.split(features, labels, fovs):
        # PCA once per fold, not once per point of the grid.
        train, held = _components(features[inside], features[outside])
        for k, point in enumerate(grid):
            predicted[k, outside] = _predict(train, labels[inside], held, point, config)
    correct = (predicted == labels).sum(axis=1)
    best = int(np.argmax(correct))  # of equal points the first, which has the smallest penalty
    train, test_components = _components(features, test)
    votes = _predict(train, labels, test_components, grid[best], config)
    chosen = dict(zip(("C", "gamma", "degree"), grid[best], strict=True))
    return Votes(votes, chosen, float(correct[best] / len(labels)), fovs, predicted[best])


def _components(train: Float32, other: Float32) -> tuple[Float64, Float64]:
    """Transform both arrays to the principal components of the first; keep all, as in the paper."""
    from sklearn.decomposition import PCA

    pca = PCA(svd_solver="full").fit(train.astype(np.float64))
    return pca.transform(train), pca.transform(other)


def _predict(
    train: Float64,
    labels: npt.NDArray[np.bool_],
    other: Float64,
    point: tuple[float, float, int],
    config: HybridConfig,
) -> npt.NDArray[np.bool_]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    c, gamma, degree = point
    machine = SVC(kernel="poly", C=c, gamma=gamma, degree=degree, max_iter=config.max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(train, labels)
    return np.asarray(machine.predict(other), np.bool_)
