"""The datasets there are, described without loading anything."""

from dataclasses import dataclass

__all__ = ["DATASETS", "DatasetInfo"]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a dataset before it is loaded.

    Attributes
    ----------
    description
        One line: what a row is and what is to be predicted.
    task
        "classification" or "regression".
    source
        Where the data come from.
    """

    description: str
    task: str
    source: str


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        "8 × 8 images of handwritten digits, 10 classes", "classification", "UCI, by scikit-learn"
    ),
    "breast_cancer": DatasetInfo(
        "30 measurements of cell nuclei, malignant or benign",
        "classification",
        "UCI Wisconsin diagnostic, by scikit-learn",
    ),
    "wine": DatasetInfo(
        "13 chemical measurements of wines from 3 cultivars",
        "classification",
        "UCI, by scikit-learn",
    ),
    "iris": DatasetInfo(
        "4 measurements of flowers of 3 species", "classification", "Fisher, by scikit-learn"
    ),
    "moons": DatasetInfo(
        "2-D points on two interleaved half circles", "classification", "synthetic, scikit-learn"
    ),
    "diabetes": DatasetInfo(
        "10 measurements of patients, disease progression after one year",
        "regression",
        "Efron et al., by scikit-learn",
    ),
    "sine": DatasetInfo(
        "1-D sinusoid with noise, no training inputs in the middle", "regression", "synthetic"
    ),
}
"""Names that `load_dataset` knows."""
