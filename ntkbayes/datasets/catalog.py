"""The datasets and the distribution shifts there are, described without loading anything."""

from dataclasses import dataclass

__all__ = ["DATASETS", "SHIFTS", "DatasetInfo", "ShiftInfo"]


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
        "1,797 images, 8 × 8, of handwritten digits, 10 classes",
        "classification",
        "UCI, by scikit-learn",
    ),
    "breast_cancer": DatasetInfo(
        "30 measurements of the cell nuclei of 569 tumours, malignant or benign",
        "classification",
        "UCI Wisconsin diagnostic, by scikit-learn",
    ),
    "wine": DatasetInfo(
        "13 chemical measurements of 178 wines from 3 cultivars",
        "classification",
        "UCI, by scikit-learn",
    ),
    "iris": DatasetInfo(
        "4 measurements of 150 flowers of 3 species", "classification", "Fisher, by scikit-learn"
    ),
    "moons": DatasetInfo(
        "2-D points on two interleaved half circles", "classification", "synthetic, scikit-learn"
    ),
    "diabetes": DatasetInfo(
        "10 measurements of 442 patients, disease progression after one year",
        "regression",
        "Efron et al., by scikit-learn",
    ),
    "sine": DatasetInfo(
        "1-D sinusoid with noise, no training inputs in the middle", "regression", "synthetic"
    ),
}
"""Names that `load_dataset` knows."""


@dataclass(frozen=True)
class ShiftInfo:
    """What is known about a shift of the test inputs.

    Attributes
    ----------
    description
        One line: what happens to the inputs.
    needs
        What the data must be: "pictures", "features" (rows that are no pictures), or "sine" (the
        synthetic data of that name, whose true function is known).
    levels
        How far the inputs are shifted at severities 1 to 5.
    unit
        What the levels count.
    """

    description: str
    needs: str
    levels: tuple[float, float, float, float, float]
    unit: str


SHIFTS: dict[str, ShiftInfo] = {
    "rotation": ShiftInfo(
        "pictures turned counterclockwise", "pictures", (8, 15, 22, 30, 45), "degrees"
    ),
    "translation": ShiftInfo(
        "pictures moved, each in a direction of its own",
        "pictures",
        (0.03, 0.06, 0.09, 0.12, 0.16),
        "shorter sides of the picture",
    ),
    "blur": ShiftInfo(
        "pictures blurred by a Gaussian",
        "pictures",
        (0.06, 0.08, 0.1, 0.115, 0.13),
        "standard deviation in shorter sides of the picture",
    ),
    "noise": ShiftInfo(
        "Gaussian noise added to every pixel",
        "pictures",
        (0.08, 0.15, 0.22, 0.3, 0.4),
        "standard deviation in ranges of intensity",
    ),
    "inversion": ShiftInfo(
        "pictures mixed with their negative",
        "pictures",
        (0.1, 0.2, 0.3, 0.4, 1.0),
        "share of the negative",
    ),
    "feature-shift": ShiftInfo(
        "every feature moved by the same amount in all rows, up or down at random",
        "features",
        (0.25, 0.5, 1.0, 1.5, 2.0),
        "training standard deviations",
    ),
    "feature-noise": ShiftInfo(
        "Gaussian noise added to every feature",
        "features",
        (0.25, 0.5, 0.75, 1.0, 1.5),
        "training standard deviations",
    ),
    "away": ShiftInfo(
        "test points of the true function in shells around the training inputs",
        "sine",
        (1.1, 1.25, 1.5, 2.0, 3.0),
        "outer radius in radii of the training inputs",
    ),
}
"""Names that `ntkbayes.datasets.shift` knows.

On "digits" (seed 0) a support vector machine trained on clean pictures has an accuracy of 0.99; at
severity 1 it has 0.976 or more, at severity 5: rotation 0.26, translation 0.35, blur 0.75,
noise 0.78, inversion 0.10. A reader sees most digits at all of them. Mixtures with the negative
near one half are blank, which the levels leave out. The features' levels pass the deviation by
which classes differ: at 5 no more than a guess may be left.
"""
