"""Names and titles of the systems that the paper compares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from senoscope_training.networks.architectures import ARCHITECTURES, PAPER_ARCHITECTURES

NETWORKS: tuple[str, ...] = tuple(one.name for one in PAPER_ARCHITECTURES)


def _known_network(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(f"{name!r} must be one of {', '.join(ARCHITECTURES)}")
    return name


NetworkName = Annotated[str, AfterValidator(_known_network)]

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
"""The channels that an ablation keeps; the others are set to zero after scaling, because the backbones take
three channels."""

_TABLE_2 = (
    *("inception_v3", "resnet50", "efficientnet_b4", "densenet121", "mobilenet"),
    *("inception_resnet_v2", "xception"),
)


def titles() -> dict[str, str]:
    """Return the title of each row of a table, in the paper's order.

    Rows are systems, and the single fine-tuned networks of ``fully_trained``, those of the paper first.
    """
    names = [*_TABLE_2, *(name for name in ARCHITECTURES if name not in _TABLE_2)]
    return {
        "fully_trained": "Fully trained EL",
        "frozen": "Frozen EL",
        "hybrid": "Hybrid TL/ML",
        "scratch": "CNN from scratch",
        **{name: ARCHITECTURES[name].title for name in names},
        "two_channels_tpef_transmission": "Fully trained EL, TPEF + Transmission",
        "two_channels_srs_transmission": "Fully trained EL, SRS + Transmission",
        "two_channels_srs_tpef": "Fully trained EL, SRS + TPEF",
    }


def title_of(name: str) -> str:
    """Return the title of a system or a network; of a network without a title, its name."""
    return titles().get(name, name)


def in_table_order(names: Iterable[str]) -> list[str]:
    """Sort systems and networks in the order of :func:`titles`; names that are not in it come last."""
    order = list(titles())
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
