"""Numbers from papers, for comparison tables. They are quoted, not measured here."""

from dataclasses import dataclass

__all__ = ["LANDMARK_OVERLAP", "PUBLISHED", "Published", "landmark_overlap"]


@dataclass(frozen=True, slots=True)
class Published:
    """mAP in percent as a paper prints it: Medium and Hard on ROxford5k and RParis6k."""

    method: str
    roxford5k: tuple[float, float]
    rparis6k: tuple[float, float]


PUBLISHED = (
    Published("ResNet101 GeM, learned whitening, SfM-120k", (65.4, 40.1), (76.7, 55.2)),
    Published("ResNet101 GeM, FC whitening, GL18", (67.3, 44.3), (80.6, 61.5)),
    Published("SOLAR ResNet101, GL18", (69.9, 47.9), (81.6, 64.5)),
    Published("HOW ResNet50⁻ with ASMK", (79.4, 56.9), (81.6, 62.4)),
    Published("FIRe", (82.6, 62.2), (85.2, 70.0)),
    Published("DELG ResNet101, global", (76.3, 55.6), (86.6, 72.4)),
    Published("DELG ResNet101 with spatial verification", (81.2, 64.0), (87.2, 72.8)),
    Published("Token ResNet101", (82.2, 65.8), (89.4, 78.4)),
    Published("DINOv2 ViT-L/14, frozen", (75.1, 54.0), (92.7, 83.5)),
    Published("SuperGlobal ResNet101, re-ranked", (90.9, 80.2), (93.9, 86.7)),
)

# training data -> data set -> what they share
LANDMARK_OVERLAP: dict[str, dict[str, str]] = {
    "gldv2-clean": {
        "roxford5k": "36 of 70 queries show a landmark of the training data",
        "rparis6k": "38 of 70 queries show a landmark of the training data",
    },
    "sfm120k": {"roxford5k": "none", "rparis6k": "none"},
    "twin-facades": {"roxford5k": "none (rendered)", "rparis6k": "none (rendered)"},
}


def landmark_overlap(training_data: str, dataset: str) -> str:
    """What is known of landmarks that training data and a test set share, for a result card.

    Example:
        >>> landmark_overlap("sfm120k", "roxford5k")
        'none'
        >>> landmark_overlap("my photographs", "roxford5k")
        'unknown'
    """
    return LANDMARK_OVERLAP.get(training_data.lower(), {}).get(dataset, "unknown")
