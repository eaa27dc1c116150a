"""Tables of metrics and differences as `compare` makes them, from a few numbers."""

import numpy as np
import pandas as pd


def long_table(**metrics):
    """Rows from name = {method: (value, standard error) or (value, error, floor)}."""
    rows = [
        (method, name, *numbers, *((np.nan,) if len(numbers) == 2 else ()))
        for name, values in metrics.items()
        for method, numbers in values.items()
    ]
    columns = ["method", "metric", "value", "standard_error", "monte_carlo_floor"]
    return pd.DataFrame(rows, columns=columns).assign(calibration_floor=np.nan)


def difference_table(metric, baseline, **values):
    rows = [(m, baseline, metric, *numbers) for m, numbers in values.items()]
    return pd.DataFrame(
        rows, columns=["method", "baseline", "metric", "difference", "standard_error"]
    )


def value_of(long, method, metric, column="value"):
    return long.set_index(["method", "metric"])[column][method, metric]
