from .arrays import make_dataset
from .catalog import DATASETS, DatasetInfo
from .loading import load_dataset
from .record import Dataset

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "load_dataset", "make_dataset"]
