"""How linear training really is: finite networks against their linearisation and infinite width.

- sweep: `width_sweep` trains real networks of several widths under the `CONDITIONS` and measures,
  along training, what the theory of lazy training speaks about (`MEASURES`); `fit_slopes` says how
  fast each of them falls with width.
- ensembles: `ensemble_sweep` compares the distribution of many trained networks with the closed
  form.
- variances: `variance_profile` compares ensembles' variance with Laplace's and HMC's, near the data
  and away from it.
- figures: `plot_against_width`, `plot_against_time`, `plot_layers`, `plot_ensembles` and
  `plot_variance_profile`.

Examples
--------
The examples of the functions begin with that of `ntkbayes`, and with a small sweep:

>>> sweep = nb.lazy.width_sweep(
...     network, data.x_train, data.y_train, data.x_test[:20], key=key,
...     conditions={"regularized": nb.lazy.CONDITIONS["regularized"]},
...     widths=(32, 128), num_seeds=2, time=1.0, num_records=3,
... )
"""

from ntkbayes.lazy.conditions import CONDITIONS, Condition
from ntkbayes.lazy.dynamics import MEASURES
from ntkbayes.lazy.ensemble_plots import plot_ensembles, plot_variance_profile
from ntkbayes.lazy.ensembles import ENSEMBLE_MEASURES, ensemble_sweep
from ntkbayes.lazy.plots import plot_against_time, plot_against_width, plot_layers
from ntkbayes.lazy.slopes import fit_slopes
from ntkbayes.lazy.sweep import WidthSweep, width_sweep
from ntkbayes.lazy.variances import ENSEMBLES, variance_profile

__all__ = [
    "CONDITIONS",
    "ENSEMBLES",
    "ENSEMBLE_MEASURES",
    "MEASURES",
    "Condition",
    "WidthSweep",
    "ensemble_sweep",
    "fit_slopes",
    "plot_against_time",
    "plot_against_width",
    "plot_ensembles",
    "plot_layers",
    "plot_variance_profile",
    "variance_profile",
    "width_sweep",
]
