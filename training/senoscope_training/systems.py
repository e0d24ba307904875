"""The systems that the paper compares, by name."""

from __future__ import annotations

from typing import Literal, get_args

NetworkName = Literal[
    "inception_v3",
    "efficientnet_b4",
    "densenet121",
    "resnet50",
    "mobilenet",
    "xception",
    "inception_resnet_v2",
]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)

SystemName = Literal[
    "fully_trained",
    "frozen",
    "hybrid",
    "scratch",
    "two_channels_tpef_transmission",
    "two_channels_srs_transmission",
    "two_channels_srs_tpef",
]
SYSTEMS: tuple[SystemName, ...] = get_args(SystemName)

CHANNELS_OF: dict[str, tuple[int, ...]] = {
    "two_channels_tpef_transmission": (1, 2),
    "two_channels_srs_transmission": (0, 2),
    "two_channels_srs_tpef": (0, 1),
}
"""Which channels an ablation keeps; the others are zero after scaling, so that backbones stay as they are."""

TITLES: dict[str, str] = {
    "fully_trained": "Fully trained EL",
    "frozen": "Frozen EL",
    "hybrid": "Hybrid TL/ML",
    "scratch": "CNN from scratch",
    "inception_v3": "InceptionV3",
    "resnet50": "ResNet50",
    "efficientnet_b4": "EfficientNetB4",
    "densenet121": "DenseNet121",
    "mobilenet": "MobileNet",
    "inception_resnet_v2": "InceptionResNetV2",
    "xception": "Xception",
    "two_channels_tpef_transmission": "Fully trained EL, TPEF + Transmission",
    "two_channels_srs_transmission": "Fully trained EL, SRS + Transmission",
    "two_channels_srs_tpef": "Fully trained EL, SRS + TPEF",
}
"""What to call each row of a table: systems, and the single fine-tuned networks of ``fully_trained``."""
