"""Small problems on which several tests agree."""

import jax
import jax.numpy as jnp
import numpy as np

import ntkbayes as nb

NETWORK = nb.dense_network(depth=2, width=64, activation="relu", bias_scale=0.3)


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
