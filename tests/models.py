"""Small problems on which several tests agree."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import ntkbayes as nb
from ntkbayes.networks import KernelPair, WideNetwork

NETWORK = nb.dense_network(depth=2, width=64, activation="relu", bias_scale=0.3)


class LinearNetwork(WideNetwork):
    """Fixed random features times weights N(0, 1): finite and infinite network are one model."""

    num_weights: int = 20

    def init(self, key, *, num_features, num_outputs):
        return jax.random.normal(key, (self.num_weights, num_outputs))

    def apply(self, params, x):
        return self.transform(x) @ params

    def transform(self, x):
        features = 3 * jax.random.normal(jax.random.key(5), (x.shape[1], self.num_weights))
        return jnp.tanh(x @ features.astype(x.dtype)) / math.sqrt(self.num_weights)

    def kernel(self, x1, x2=None):
        k = self.ntk(x1, x2)
        return KernelPair(k, k)

    def ntk(self, x1, x2=None):
        return self.transform(x1) @ self.transform(x1 if x2 is None else x2).T

    def nngp(self, x1, x2=None):
        return self.ntk(x1, x2)

    def settings(self):
        return {"network": "linear"}


LINEAR = LinearNetwork()


def regression_data(num_train=8, num_test=4, num_features=2, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(num_train + num_test, num_features)))
    y = jnp.sin(x[:, 0]) + 0.1 * jnp.asarray(rng.normal(size=len(x)))
    return x[:num_train], y[:num_train], x[num_train:]


def classification_data(num_train=7, num_test=3, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(num_train + num_test, 2)))
    y = jnp.asarray(np.arange(num_train) % num_classes)
    return x[:num_train], y, x[num_train:]


def exact_gp(k, noise_variance, y, num_train):
    """Posterior moments by numpy.linalg.solve, from the joint prior covariance of (train, test)."""
    k = np.asarray(k)
    train, cross, test = (
        k[:num_train, :num_train],
        k[:num_train, num_train:],
        k[num_train:, num_train:],
    )
    gain = np.linalg.solve(train + noise_variance * np.eye(num_train), cross).T
    return gain @ np.asarray(y), test - gain @ cross


def softmax(f):
    return np.asarray(jax.nn.softmax(jnp.asarray(f), axis=-1))


def brute_force_hessian(k, p):
    """K⁻¹ ⊗ I + W as one dense matrix, ordered point by point."""
    n, c = p.shape
    dense = np.kron(np.linalg.inv(np.asarray(k)), np.eye(c))
    for i in range(n):
        dense[i * c : (i + 1) * c, i * c : (i + 1) * c] += np.diag(p[i]) - np.outer(p[i], p[i])
    return dense
