"""The settings of a comparison, and those chosen for each dataset."""

import os
from pathlib import Path
from typing import Any, get_type_hints

import equinox as eqx
from beartype.door import is_bearable

from ntkbayes._checks import check_at_least, check_choice, check_positive, check_seed
from ntkbayes._files import read_toml
from ntkbayes._typed import INT_IS_FLOAT
from ntkbayes.datasets import DATASETS
from ntkbayes.methods import METHODS

__all__ = ["PRESETS", "ComparisonConfig", "preset", "read_settings"]


def _as_tuple(names: Any) -> Any:
    """Take a list too, which is what TOML has."""
    return tuple(names) if isinstance(names, list) else names


class ComparisonConfig(eqx.Module):
    """Everything that decides the numbers of a comparison; `preset` fills in a dataset's own.

    Parameters
    ----------
    dataset
        One of `DATASETS`.
    methods
        Names from `METHODS`.
    prior_precision
        λ > 0, the weight of ½‖θ − θ₀‖² against the *summed* loss.
    seed
        Draws the data split and every random number; zero or positive.
    num_draws
        Draws per method, ≥ 1; HMC keeps as many in each of its chains.
    num_train
        Number of training points; None for the dataset's own.
    noise_variance
        Regression only, squared standardised target units; None for the noise the data were made
        with.
    depth, width, activation, weight_scale, bias_scale, readout_scale
        The network, as in `dense_network`; `width` counts for trained networks only.
    num_warmup, num_chains
        Of HMC: steps of adaptation per chain, and chains.
    product_dtype
        Of HMC: type of its matrix products, as in `ntkbayes.hmc`.
    num_members
        Networks of the deep ensemble.
    tune
        Whether `prior_precision`, `noise_variance` and `bias_scale` are only where a search for the
        largest log marginal likelihood starts.

    Raises
    ------
    ValueError
        If a value is out of range or a name unknown.
    """

    dataset: str
    methods: tuple[str, ...] = eqx.field(default=tuple(METHODS), converter=_as_tuple)
    prior_precision: float = 1.0
    seed: int = 0
    num_draws: int = 1000
    num_train: int | None = None
    noise_variance: float | None = None
    depth: int = 2
    width: int = 512
    activation: str = "relu"
    weight_scale: float = 2**0.5
    bias_scale: float = 0.1
    readout_scale: float = 1.0
    num_warmup: int = 500
    num_chains: int = 4
    product_dtype: str | None = None
    num_members: int = 5
    tune: bool = False

    def __check_init__(self):
        for name, hint in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        check_choice("dataset", self.dataset, DATASETS)
        if not self.methods:
            raise ValueError(f"no method given: choose from {', '.join(METHODS)}.")
        for method in self.methods:
            check_choice("method", method, METHODS)
        check_positive("prior_precision", self.prior_precision)
        check_seed("seed", self.seed)
        check_at_least("num_draws", self.num_draws, 1)
        check_at_least("num_warmup", self.num_warmup, 1)
        check_at_least("num_chains", self.num_chains, 1)
        check_at_least("num_members", self.num_members, 1)
        if self.noise_variance is not None:
            check_positive("noise_variance", self.noise_variance)
        if self.product_dtype is not None:
            check_choice("product_dtype", self.product_dtype, ("float32", "float64"))

    def settings(self) -> dict[str, Any]:
        """Name → value of every setting that is not None, as written to ``config.toml``."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["methods"] = list(self.methods)
        return {name: value for name, value in values.items() if value is not None}


PRESETS: dict[str, dict[str, Any]] = {
    "digits": {
        "prior_precision": 0.1,
        "num_draws": 600,
        "num_warmup": 120,
        "width": 256,
        "product_dtype": "float32",
    },
    "diabetes": {"noise_variance": 0.5},
}
"""Settings of a dataset that differ from the defaults of `ComparisonConfig`."""


def preset(dataset: str, **changes: Any) -> ComparisonConfig:
    """Return the settings chosen for a dataset, with changes; a change of None changes nothing.

    Raises
    ------
    ValueError
        If a value is out of range or a name unknown.
    """
    check_choice("dataset", dataset, DATASETS)
    for name in changes:
        check_choice("setting", name, ComparisonConfig.__dataclass_fields__)
    given = {name: value for name, value in changes.items() if value is not None}
    return ComparisonConfig(dataset, **(PRESETS.get(dataset, {}) | given))


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read changes for `preset` from a TOML file, such as the ``config.toml`` of a run.

    Raises
    ------
    ValueError
        If the file cannot be read, or holds something that is no setting.
    """
    found = read_toml(Path(path))
    for name in found:
        check_choice(f"setting in {path}:", name, ComparisonConfig.__dataclass_fields__)
    return found


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Raise `ValueError` unless a value is what a field is annotated with; an int is a float."""
    fits = is_bearable(value, hint, conf=INT_IS_FLOAT)
    if not fits or (isinstance(value, bool) and hint is not bool):
        wanted = hint.__name__ if isinstance(hint, type) else str(hint)
        raise ValueError(f"{name} must be {wanted}, but is {value!r}.")
