"""The metrics in the paper (Table 2; section 3 for two channels), in percent."""

from __future__ import annotations

from typing import NamedTuple


class PaperRow(NamedTuple):
    """Mean and standard deviation over nine runs, and the largest AUC of these runs."""

    accuracy: tuple[float, float] | None = None
    precision: tuple[float, float] | None = None
    recall: tuple[float, float] | None = None
    f1: tuple[float, float] | None = None
    max_auc: float | None = None


TABLE_2: dict[str, PaperRow] = {
    "fully_trained": PaperRow((90.1, 1.2), (94.5, 2.2), (87.4, 2.6), (90.8, 1.2), 96.0),
    "frozen": PaperRow((85.8, 2.9), (95.8, 2.8), (77.9, 5.9), (85.8, 3.3), 93.6),
    "hybrid": PaperRow((85.4, 3.1), (85.9, 2.9), (84.7, 3.3), (85.3, 3.1), 92.4),
    "scratch": PaperRow((71.5, 9.4), (81.5, 16.9), (76.5, 23.4), (73.7, 10.7), 83.6),
    "inception_v3": PaperRow((74.1, 2.6), (95.7, 3.4), (55.9, 4.7), (70.5, 3.7), 89.4),
    "resnet50": PaperRow((77.3, 3.9), (84.8, 8.5), (74.8, 14.0), (77.9, 6.2), 91.9),
    "efficientnet_b4": PaperRow((75.3, 2.8), (86.6, 9.7), (68.9, 14.4), (75.0, 5.5), 83.6),
    "densenet121": PaperRow((77.2, 3.8), (83.8, 8.1), (75.6, 12.6), (78.2, 5.5), 90.6),
    "mobilenet": PaperRow((78.6, 4.6), (84.0, 7.5), (77.9, 12.4), (79.7, 6.0), 91.4),
    "inception_resnet_v2": PaperRow((78.4, 4.4), (85.4, 7.8), (75.8, 12.6), (79.1, 5.9), 86.9),
    "xception": PaperRow((78.4, 4.2), (85.9, 7.5), (75.0, 12.1), (79.0, 5.7), 86.1),
    "two_channels_tpef_transmission": PaperRow((85.8, float("nan"))),
    "two_channels_srs_transmission": PaperRow((87.2, float("nan"))),
    "two_channels_srs_tpef": PaperRow((87.4, float("nan"))),
}
