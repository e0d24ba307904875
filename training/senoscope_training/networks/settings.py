"""How networks are trained: one typed model for each part, each default the paper's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class ConfigModel(BaseModel):
    """A part of a configuration; keys that it does not have are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AugmentationConfig(ConfigModel):
    """Random copies of training and validation FOVs; empty corners become zero."""

    copies: Annotated[int, Field(ge=0, le=100)] = 11
    """Copies per FOV beside the original."""
    rotation_deg: NotNegative = 45.0
    """Largest angle, either way."""
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest shift as a fraction of height and width, either way."""
    horizontal_flip: bool = True
    """Mirror half of the copies."""
    draw: Literal["each", "with_replacement"] = "each"
    """`each` FOV gets the same number of copies; the authors draw the FOVs to copy with replacement."""


class HeadConfig(ConfigModel):
    """The classification head on global-max-pooled features."""

    units: Annotated[int, Field(ge=1, le=1024)] = 4
    """Of the hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Of the pooled features."""
    kernel_l1: NotNegative = 0.01
    """L1 penalty on the hidden kernel."""
    kernel_l2: NotNegative = 0.01
    """L2 penalty on the hidden kernel."""
    bias_l2: NotNegative = 0.01
    """L2 penalty on the hidden bias."""
    activity_l2: NotNegative = 5e-5
    """L2 penalty on the hidden activity."""
    standardize: Literal["auto", "always", "never"] = "auto"
    """Standardise pooled features before the head; folded into the head on export. The paper does not.
    `auto` does so for random backbones only, whose raw features leave most heads dead."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """Initial weights to try until the head is alive: all of four units can be off by chance."""


class PhaseConfig(ConfigModel):
    """One phase of training a network with Adam and early stopping on the validation loss."""

    learning_rate: Positive
    """Of Adam."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 20
    """FOVs per step."""
    max_epochs: Annotated[int, Field(ge=1, le=100000)] = 200
    """Epochs at most."""
    patience: Annotated[int, Field(ge=1, le=100000)]
    """Epochs without improvement after which training stops and the best weights are restored."""
    min_delta: NotNegative
    """What counts as an improvement of the validation loss."""


class FrozenPhase(PhaseConfig):
    """Phase 1: the head alone learns."""

    learning_rate: Positive = 5e-4
    patience: Annotated[int, Field(ge=1, le=100000)] = 20
    min_delta: NotNegative = 0.005


class TunedPhase(PhaseConfig):
    """Phase 2: everything learns; batch norm keeps its statistics."""

    learning_rate: Positive = 2e-5
    patience: Annotated[int, Field(ge=1, le=100000)] = 15
    min_delta: NotNegative = 0.0


class HybridConfig(ConfigModel):
    """Hybrid TL/ML: PCA and a polynomial support vector machine on each frozen network's features."""

    copies: Annotated[int, Field(ge=0, le=100)] = 1
    """Augmented copies per FOV beside the original."""
    c: tuple[Positive, ...] = (0.01, 0.1, 1, 10, 100)
    """Penalties to choose from."""
    gamma: tuple[Positive, ...] = (1, 10, 100, 2000)
    """Kernel scales to choose from."""
    degree: tuple[Annotated[int, Field(ge=1, le=10)], ...] = (2, 3, 4, 5)
    """Kernel degrees to choose from."""
    cv_folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the cross-validation that chooses."""
    max_iter: Annotated[int, Field(ge=1)] = 100_000
    """Steps of the solver at most, for the corners of the grid that do not converge."""


class ScratchConfig(PhaseConfig):
    """The CNN from scratch."""

    learning_rate: Positive = 5e-4
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 10
    max_epochs: Annotated[int, Field(ge=1, le=100000)] = 250
    patience: Annotated[int, Field(ge=1, le=100000)] = 20
    min_delta: NotNegative = 0.005
    filters: Annotated[tuple[int, ...], Field(min_length=1)] = (6, 12, 24)
    """Of the convolutions, 3x3 with stride 2."""
    units: Annotated[int, Field(ge=1)] = 4
    """Of the hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Of the pooled features."""
    kernel_l1: NotNegative = 1e-4
    """L1 penalty on the hidden kernel."""
    kernel_l2: NotNegative = 1e-4
    """L2 penalty on the hidden kernel."""
    bias_l2: NotNegative = 1e-4
    """L2 penalty on the hidden bias."""
    activity_l2: NotNegative = 5e-5
    """L2 penalty on the hidden units before their ReLU."""
    pooling: Literal["valid", "same"] = "valid"
    """What the max pooling between convolutions does with an odd last row or column: leave it out, or keep
    it."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The learning rate is multiplied by this every `decay_steps` steps, smoothly; 1 keeps it."""
    decay_steps: Annotated[int, Field(ge=1)] = 1000
    """Steps, of `batch_size` FOVs each."""

    def smallest_edge(self) -> int:
        """Rows and columns that the network takes at least."""
        if self.pooling == "same":
            return 1
        edge = 1
        for _ in self.filters[1:]:
            edge = 4 * edge - 1  # a convolution rounds up when it halves, a pooling down
        return edge
