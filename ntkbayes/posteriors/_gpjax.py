"""The one place that imports GPJax: exact regression with a network's kernel."""

from typing import Any

import equinox as eqx
import gpjax as gpx
import jax.numpy as jnp
import lineax as lx

from ntkbayes._problem import TrainingSet, prior_kernel
from ntkbayes._types import Array
from ntkbayes.likelihoods import Gaussian
from ntkbayes.networks import Network

__all__ = ["condition"]


class _NetworkKernel(gpx.kernels.AbstractKernel):
    """The network's kernel, in GPJax's form."""

    network: Network  # pyright: ignore[reportGeneralTypeIssues]
    prior_precision: float  # pyright: ignore[reportGeneralTypeIssues]
    kind: str = eqx.field(static=True)  # pyright: ignore[reportGeneralTypeIssues]

    def __init__(self, network: Network, prior_precision: float, kind: str):
        super().__init__()
        self.network = network
        self.prior_precision = prior_precision
        self.kind = kind

    def __call__(self, x: Array, y: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.cross_covariance(x[None], y[None])[0, 0]

    def cross_covariance(self, x: Array, y: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return prior_kernel(
            self.network, x, y, prior_precision=self.prior_precision, kind=self.kind
        )

    def gram(self, x: Array) -> lx.AbstractLinearOperator:  # pyright: ignore[reportIncompatibleMethodOverride]
        k = prior_kernel(self.network, x, prior_precision=self.prior_precision, kind=self.kind)
        return lx.MatrixLinearOperator(k, lx.positive_semidefinite_tag)


def condition(
    likelihood: Gaussian, network: Network, train: TrainingSet, prior_precision: float, kind: str
) -> tuple[Any, ...]:
    """Condition one GPJax model per output column; GPJax's plain kernels have one output."""
    # GPJax's jitter is absolute; keep it at the rounding of the kernel.
    k_scale = float(prior_kernel(network, train.x[:1], prior_precision=prior_precision)[0, 0])
    prior = gpx.gps.Prior(
        kernel=_NetworkKernel(network, prior_precision, kind),
        mean_function=gpx.mean_functions.Zero(),
        jitter=len(train.x) * float(jnp.finfo(train.x.dtype).eps) * k_scale,
    )
    noise_scale = jnp.asarray(likelihood.noise_variance**0.5, dtype=train.x.dtype)
    model = prior * gpx.likelihoods.Gaussian(obs_stddev=noise_scale)
    columns = (train.targets[:, [j]] for j in range(train.targets.shape[1]))
    return tuple(model.condition(gpx.Dataset(train.x, column)) for column in columns)
