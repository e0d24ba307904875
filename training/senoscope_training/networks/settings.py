"""The settings of the training of networks, with the paper's values as defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class ConfigModel(BaseModel):
    """A part of a configuration; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AugmentationConfig(ConfigModel):
    """Random copies of training and validation FOVs, with zeros in empty corners."""

    copies: Annotated[int, Field(ge=0, le=100)] = 11
    """Copies per FOV, in addition to the original."""
    rotation_deg: NotNegative = 45.0
    """Largest angle of rotation in both directions, in degrees."""
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest shift in both directions, as a fraction of height and width."""
    horizontal_flip: bool = True
    """Whether to mirror half of the copies."""
    draw: Literal["each", "with_replacement"] = "each"
    """`each`: every FOV has the same number of copies; `with_replacement`: the FOVs to copy are drawn with
    replacement, as in the authors' code."""


class HeadConfig(ConfigModel):
    """The classification head on global-max-pooled features."""

    units: Annotated[int, Field(ge=1, le=1024)] = 4
    """Number of hidden units."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Dropout rate of the pooled features."""
    kernel_l1: NotNegative = 0.01
    """L1 penalty on the hidden kernel."""
    kernel_l2: NotNegative = 0.01
    """L2 penalty on the hidden kernel."""
    bias_l2: NotNegative = 0.01
    """L2 penalty on the hidden bias."""
    activity_l2: NotNegative = 5e-5
    """L2 penalty on the hidden activity."""
    standardize: Literal["auto", "always", "never"] = "auto"
    """Whether to standardise pooled features before the head; the export folds this into the head. The
    paper does not standardise. `auto` standardises only with random backbones, because most heads on their
    raw features are dead."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """Largest number of attempts, with different initial weights, to train a head that is not dead: by
    chance, all four units can be zero for all images."""


class PhaseConfig(ConfigModel):
    """A phase of the training with Adam and early stopping on the validation loss."""

    learning_rate: Positive
    """Learning rate of Adam."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 20
    """FOVs per step."""
    max_epochs: Annotated[int, Field(ge=1, le=100000)] = 200
    """Largest number of epochs."""
    patience: Annotated[int, Field(ge=1, le=100000)]
    """Epochs without improvement after which training stops and the best weights are restored."""
    min_delta: NotNegative
    """Smallest decrease of the validation loss that is an improvement."""


class FrozenPhase(PhaseConfig):
    """Phase 1: only the head is trained."""

    learning_rate: Positive = 5e-4
    patience: Annotated[int, Field(ge=1, le=100000)] = 20
    min_delta: NotNegative = 0.005


class TunedPhase(PhaseConfig):
    """Phase 2: head and backbone are trained; the statistics of batch norms are not changed."""

    learning_rate: Positive = 2e-5
    patience: Annotated[int, Field(ge=1, le=100000)] = 15
    min_delta: NotNegative = 0.0


class HybridConfig(ConfigModel):
    """Hybrid TL/ML: PCA and a polynomial support vector machine on the features of each frozen network."""

    copies: Annotated[int, Field(ge=0, le=100)] = 1
    """Augmented copies per FOV, in addition to the original."""
    c: tuple[Positive, ...] = (0.01, 0.1, 1, 10, 100)
    """Grid of penalties."""
    gamma: tuple[Positive, ...] = (1, 10, 100, 2000)
    """Grid of kernel scales."""
    degree: tuple[Annotated[int, Field(ge=1, le=10)], ...] = (2, 3, 4, 5)
    """Grid of kernel degrees."""
    cv_folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the cross-validation by which a point of the grid is chosen."""
    max_iter: Annotated[int, Field(ge=1)] = 100_000
    """Largest number of solver steps; some points of the grid do not converge."""


class ScratchConfig(PhaseConfig):
    """The CNN from scratch."""

    learning_rate: Positive = 5e-4
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 10
    max_epochs: Annotated[int, Field(ge=1, le=100000)] = 250
    patience: Annotated[int, Field(ge=1, le=100000)] = 20
    min_delta: NotNegative = 0.005
    filters: Annotated[tuple[int, ...], Field(min_length=1)] = (6, 12, 24)
    """Filters of the convolutions, which are 3x3 with stride 2."""
    units: Annotated[int, Field(ge=1)] = 4
    """Number of hidden units."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Dropout rate of the pooled features."""
    kernel_l1: NotNegative = 1e-4
    """L1 penalty on the hidden kernel."""
    kernel_l2: NotNegative = 1e-4
    """L2 penalty on the hidden kernel."""
    bias_l2: NotNegative = 1e-4
    """L2 penalty on the hidden bias."""
    activity_l2: NotNegative = 5e-5
    """L2 penalty on the hidden units before their ReLU."""
    pooling: Literal["valid", "same"] = "valid"
    """Treatment of an odd last row or column in the max pooling between convolutions: `valid` drops it,
    `same` keeps it."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The learning rate decreases exponentially by this factor in `decay_steps` steps; 1: it is constant."""
    decay_steps: Annotated[int, Field(ge=1)] = 1000
    """Steps of `batch_size` FOVs in which the learning rate decreases by the factor `decay`."""

    def smallest_edge(self) -> int:
        """Return the smallest number of rows and columns of the input."""
        if self.pooling == "same":
            return 1
        edge = 1
        for _ in self.filters[1:]:
            edge = 4 * edge - 1  # a convolution halves and rounds up, a pooling halves and rounds down
        return edge
