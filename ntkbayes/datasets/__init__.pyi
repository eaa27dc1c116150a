from .arrays import make_dataset
from .catalog import DATASETS, SHIFTS, DatasetInfo, ShiftInfo
from .loading import load_dataset
from .record import Dataset
from .shifts import away_inputs, shift
from .unseen import hold_out_classes

__all__ = [
    "DATASETS",
    "SHIFTS",
    "Dataset",
    "DatasetInfo",
    "ShiftInfo",
    "away_inputs",
    "hold_out_classes",
    "load_dataset",
    "make_dataset",
    "shift",
]
