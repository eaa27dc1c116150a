"""How linear training really is: finite networks against their linearisation and infinite width.

`width_sweep` trains real networks of several widths under the `CONDITIONS` and measures, along
training, what the theory of lazy training speaks about (`MEASURES`); `fit_slopes` says how fast
each of them falls with width; `plot_against_width` and `plot_against_time` show it.
"""

from ntkbayes.lazy.conditions import CONDITIONS, Condition
from ntkbayes.lazy.dynamics import MEASURES
from ntkbayes.lazy.plots import plot_against_time, plot_against_width, plot_layers
from ntkbayes.lazy.slopes import fit_slopes
from ntkbayes.lazy.sweep import WidthSweep, width_sweep

__all__ = [
    "CONDITIONS",
    "MEASURES",
    "Condition",
    "WidthSweep",
    "fit_slopes",
    "plot_against_time",
    "plot_against_width",
    "plot_layers",
    "width_sweep",
]
