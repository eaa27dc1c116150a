"""Datasets: data split into training, validation and test points, in standardised units.

Every dataset is made in the same steps: check the raw arrays, split them, standardise them with
statistics of the training split alone (the other splits stay unseen), and return a `Dataset`,
which checks itself. `load_dataset` gives the bundled and synthetic ones, `make_dataset` does the
same to a user's own arrays; `DATASETS` says what there is.
"""

from ntkbayes.datasets.arrays import make_dataset
from ntkbayes.datasets.catalog import DATASETS, DatasetInfo
from ntkbayes.datasets.loading import load_dataset
from ntkbayes.datasets.record import Dataset

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "load_dataset", "make_dataset"]
