import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NETWORK, classification_data, exact_gp, regression_data
from scipy.optimize import minimize

import ntkbayes as nb
from ntkbayes.posteriors import gp as gp_module
from ntkbayes.posteriors.gp import _qmc_normals


def test_regression_with_two_outputs_equals_numpy():
    x, y, x_test = regression_data()
    targets = jnp.stack([y, y**2], axis=1)
    gp = nb.gp_posterior(NETWORK, nb.Gaussian(0.1, 2), x, targets, prior_precision=0.5)
    ntk = NETWORK.kernel(jnp.concatenate([x, x_test])).ntk
    mean, covariance = exact_gp(ntk / 0.5, 0.1, targets, len(x))
    np.testing.assert_allclose(gp.mean(x_test), mean, atol=1e-8)
    np.testing.assert_allclose(gp.covariance(x_test)[:, 1, :, 1], covariance, atol=1e-8)
    np.testing.assert_array_equal(gp.covariance(x_test)[:, 0, :, 1], 0)


def test_variational_posterior_maximises_the_elbo_over_all_class_independent_gaussians(monkeypatch):
    """Against SciPy on means and Cholesky factors, the ELBO written with dense matrices."""
    # Our update takes E[p(1−p)] by quadrature, the optimiser below its reparameterised twin: they
    # agree up to the quadrature error, which many points make small.
    monkeypatch.setattr(gp_module, "NUM_QMC_POINTS", 16384)
    x, y, _ = classification_data(num_train=4)
    gp = nb.gp_posterior(NETWORK, nb.Categorical(3), x, y, prior_precision=0.5, tolerance=1e-8)
    k = jnp.asarray(NETWORK.kernel(x).ntk) / 0.5
    points, rows, columns = jnp.asarray(_qmc_normals(3)), *jnp.tril_indices(4)

    def unpack(theta):
        mean = theta[:12].reshape(4, 3)
        factors = jnp.zeros((3, 4, 4)).at[:, rows, columns].set(theta[12:].reshape(3, 10))
        return mean, factors

    def negative_elbo(theta):
        mean, factors = unpack(theta)
        covariances = factors @ jnp.swapaxes(factors, 1, 2)
        sd = jnp.sqrt(jnp.einsum("cii->ic", covariances))
        f = mean[None] + sd[None] * points[:, None, :]
        log_p = jax.nn.log_softmax(f)[:, jnp.arange(4), y]
        kl = 0.0
        for c in range(3):
            log_dets = jnp.linalg.slogdet(k)[1] - jnp.linalg.slogdet(covariances[c])[1]
            trace = jnp.trace(jnp.linalg.solve(k, covariances[c]))
            kl += 0.5 * (trace + mean[:, c] @ jnp.linalg.solve(k, mean[:, c]) - 4 + log_dets)
        return kl - log_p.mean(axis=0).sum()

    root = np.linalg.cholesky(np.asarray(k))[rows, columns]
    start = np.concatenate([np.zeros(12), np.tile(root, 3)])
    best = minimize(jax.jit(jax.value_and_grad(negative_elbo)), start, jac=True, tol=1e-12)
    mean, factors = unpack(jnp.asarray(best.x))
    ours, covariances = gp.moments(x)
    np.testing.assert_allclose(gp.elbo, -best.fun, rtol=1e-5)
    np.testing.assert_allclose(ours, mean, rtol=5e-3, atol=2e-3)
    np.testing.assert_allclose(
        covariances, factors @ jnp.swapaxes(factors, 1, 2), rtol=5e-3, atol=2e-3
    )


def test_permuting_the_training_data_changes_nothing():
    x, y, x_test = classification_data()
    order = np.random.default_rng(0).permutation(len(x))
    settings = {"prior_precision": 0.5, "tolerance": 1e-7}
    a = nb.gp_posterior(NETWORK, nb.Categorical(3), x, y, **settings)
    b = nb.gp_posterior(NETWORK, nb.Categorical(3), x[order], y[order], **settings)
    for one, other in zip(a.moments(x_test), b.moments(x_test), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_unknown_kernel_is_refused():
    x, y, _ = classification_data()
    with pytest.raises(ValueError, match="unknown kernel 'ntkk': did you mean ntk"):
        nb.gp_posterior(NETWORK, nb.Categorical(3), x, y, prior_precision=1.0, kernel="ntkk")


def test_the_tolerance_bounds_the_distance_from_the_optimum():
    x, y, _ = classification_data(num_train=12)
    model = (NETWORK, nb.Categorical(3), x, y)
    loose = nb.gp_posterior(*model, prior_precision=0.1)
    tight = nb.gp_posterior(*model, prior_precision=0.1, tolerance=1e-9)
    assert loose.num_iterations < tight.num_iterations
    assert float(abs(loose.a - tight.a).max()) < 1e-4
    assert float(abs(loose.hessian.weights - tight.hessian.weights).max()) < 1e-4
