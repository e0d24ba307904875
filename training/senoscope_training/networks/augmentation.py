"""Augmentation: rotated, shifted and mirrored copies of fields of view, with zeros in empty corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from senoscope_training.networks.settings import AugmentationConfig


@dataclass(frozen=True)
class Copies:
    """The original FOVs of a data set, followed by their augmented copies, M images in all."""

    source: npt.NDArray[np.int64]
    """[M], index of the FOV of each image."""
    transforms: npt.NDArray[np.float32]
    """[M, 2, 3], affine maps from a pixel (x, y) of a copy to that of the original, and identities."""

    def __len__(self) -> int:
        return len(self.source)

    def render(self, images: npt.NDArray[Any], indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Compute the images with the given indices, of the type of the originals [N, H, W, C]."""
        height, width = images.shape[1:3]
        made = np.empty((len(indices), *images.shape[1:]), images.dtype)
        for k, index in enumerate(indices):
            original = images[self.source[index]]
            if index < len(images):
                made[k] = original
                continue
            made[k] = cv2.warpAffine(
                original,
                self.transforms[index],
                (width, height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=0,
            ).reshape(original.shape)
        return made


def plan_copies(
    labels: npt.NDArray[np.bool_], height: int, width: int, config: AugmentationConfig, seed: int
) -> Copies:
    """Draw the copies of N fields of view: N originals, followed by ``copies`` times N copies.

    With ``draw: with_replacement`` the FOVs to copy are drawn within each class, as in the authors' code:
    some FOVs then have more copies than others, and some may have none.
    """
    rng = np.random.default_rng(seed)
    count = len(labels)
    if config.draw == "each":
        sources = np.repeat(np.arange(count), config.copies)
    else:
        sources = np.concatenate(
            [
                rng.choice(members, config.copies * len(members))
                for members in (np.flatnonzero(~labels), np.flatnonzero(labels))
                if len(members)
            ]
        )
    identity = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (count, 1, 1))
    drawn = [_transform(height, width, config, rng) for _ in sources]
    transforms = np.concatenate([identity, np.array(drawn, np.float32).reshape(-1, 2, 3)])
    return Copies(np.concatenate([np.arange(count), sources]).astype(np.int64), transforms)


def _transform(
    height: int, width: int, config: AugmentationConfig, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw a rotation about the centre, mirroring and a shift, as the map from copy to original."""
    angle = np.deg2rad(rng.uniform(-config.rotation_deg, config.rotation_deg))
    shift = rng.uniform(-config.shift, config.shift, 2) * (width, height)
    mirror = -1.0 if config.horizontal_flip and rng.random() < 0.5 else 1.0
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1.0])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([linear, centre - linear @ (centre + shift)])


def first_copies(copies: Copies, fovs: int, wanted: int) -> npt.NDArray[np.int64]:
    """Return the indices of the originals and of each FOV's first ``wanted`` copies."""
    taken = [np.flatnonzero(copies.source == fov)[: 1 + wanted] for fov in range(fovs)]
    return np.sort(np.concatenate(taken))
