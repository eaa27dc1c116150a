"""Likelihoods that users write, with a curvature that couples the outputs of a point."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ntkbayes as nb
from ntkbayes.likelihoods import Likelihood


class CorrelatedNoise(Likelihood):
    """Gaussian noise of covariance Σ between the two outputs of a point."""

    covariance: np.ndarray = eqx.field(default_factory=lambda: np.array([[0.5, 0.4], [0.4, 0.6]]))
    num_outputs: int = eqx.field(static=True, default=2)

    def _precision(self, dtype):
        return jnp.linalg.inv(jnp.asarray(self.covariance, dtype))

    def targets(self, y):
        return jnp.asarray(y, jnp.result_type(float))

    def log_prob(self, target, f):
        moved = target - f
        constant = jnp.linalg.slogdet(2 * jnp.pi * jnp.asarray(self.covariance, f.dtype))[1]
        return -0.5 * (moved @ self._precision(f.dtype) @ moved + constant)

    def score(self, target, f):
        return self._precision(f.dtype) @ (target - f)

    def curvature(self, f):
        return self._precision(f.dtype)

    def curvature_product(self, f, vector):
        return self._precision(f.dtype) @ vector

    def saturated(self, targets):
        return targets

    def score_noise(self, key, f):
        root = jnp.linalg.cholesky(self._precision(f.dtype))
        return root @ jax.random.normal(key, f.shape, f.dtype)

    def sample(self, key, f):
        root = jnp.linalg.cholesky(jnp.asarray(self.covariance, f.dtype))
        return f + root @ jax.random.normal(key, f.shape, f.dtype)

    def settings(self):
        return {"name": "CorrelatedNoise", "num_outputs": 2}


class OwnSoftmax(Likelihood):
    """A softmax that says nothing of its curvature's structure."""

    num_outputs: int = eqx.field(static=True, default=3)

    def targets(self, y):
        return nb.Categorical(3).targets(y)

    def log_prob(self, target, f):
        return jnp.dot(target, jax.nn.log_softmax(f))

    def score(self, target, f):
        return target - jax.nn.softmax(f)

    def curvature(self, f):
        p = jax.nn.softmax(f)
        return jnp.diag(p) - jnp.outer(p, p)

    def curvature_product(self, f, vector):
        return self.curvature(f) @ vector

    def saturated(self, targets):
        return nb.Categorical(3).saturated(targets)

    def identified(self, dtype):
        return nb.Categorical(3).identified(dtype)

    def score_noise(self, key, f):
        return nb.Categorical(3).score_noise(key, f)

    def sample(self, key, f):
        return nb.Categorical(3).sample(key, f)

    def settings(self):
        return {"name": "OwnSoftmax", "num_outputs": 3}


class TemperedSoftmax(nb.Categorical):
    """softmax(f / 2): `Categorical` with another curvature, of which that one says nothing."""

    def __init__(self):
        super().__init__(3)

    def log_prob(self, target, f):
        return super().log_prob(target, f / 2)

    def score(self, target, f):
        return super().score(target, f / 2) / 2

    def curvature(self, f):
        return super().curvature(f / 2) / 4

    def curvature_product(self, f, vector):
        return super().curvature_product(f / 2, vector) / 4
