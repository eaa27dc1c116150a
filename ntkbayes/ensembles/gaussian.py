"""The cases in which the ensemble is a Gaussian process with closed-form moments.

Training moves f₀ linearly: with A(x) = Θ(x, X) φ(Θ) and F the values it drives f(X) to,

    f(x) = f₀(x) + A(x) P (F + ε − f₀(X)).

- Gaussian noise: φ(e) = (1 − exp(−t (e/σ² + λ))) / (e + λσ²) of the eigenvalues e, F = y, P = I,
  and ε ~ N(0, σ²) where targets are perturbed. At λ = 0 and finite t a singular Θ is no obstacle:
  φ(0) = t/σ².
- Any other likelihood trained to the end without regularisation (λ = 0, t = ∞), on targets that a
  finite f can reproduce: φ(e) = 1/e, F the latent function that does (log Y for classes), ε = 0,
  and P = I − 11ᵀ/c for classes, whose mean logit is never moved.

So the mean is A F, and with Q₀ the covariance of the initial function (Q, Θ/λ or 0)

    cov = S ⊗ P + Q₀(x, x') ⊗ (I − P),
    S = Q₀(x, x') − A Q₀(X, x') − Q₀(x, X) Aᵀ + A (Q₀(X, X) + σ²[perturbed]) Aᵀ.

References
----------
Lee et al. 2019, arXiv 1902.06720, eqs. 14-16 (λ = 0, σ² = 1). Calvo-Ordoñez et al. 2026, arXiv
2605.17606 (non-degenerate targets). Matheron's rule makes initial ``"ntk"`` with perturbed targets
the exact GP posterior (He et al. 2020, arXiv 2007.05864).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from ntkbayes._arrays import more_digits
from ntkbayes._linalg import cholesky, conditional_covariance, eigenbasis
from ntkbayes._problem import TrainingSet, check_draws, checked_inputs, warn_of_hidden_noise
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.ensembles.initial import InitialLaw, initial_law
from ntkbayes.ensembles.members import Members
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.predictors import Draws, GaussianPredictor
from ntkbayes.solvers import require_resolved

__all__ = ["GaussianEnsemble", "interpolating_ensemble", "regression_ensemble"]


class GaussianEnsemble(GaussianPredictor):
    """A Gaussian ensemble; see the module's docstring for the notation.

    Its draws carry no error bound, for nothing is solved until a tolerance is met: φ(Θ) is a closed
    form, evaluated once in float64 by Cholesky's factorisation, or by eigenvalues at a finite time,
    and refused where rounding of Θ would decide it.

    Attributes
    ----------
    fitted
        F, one column per output.
    moved
        The projector P.
    law
        Of the initial functions.
    smoother
        φ(Θ).
    target_variance
        Variance of ε.
    """

    likelihood: Likelihood
    network: WideNetwork
    train: TrainingSet
    law: InitialLaw
    prior_precision: float
    perturb_targets: bool = eqx.field(static=True)
    time: float
    fitted: Float[Array, "n c"]
    moved: Float[Array, "c c"]
    smoother: Float[Array, "n n"]
    target_variance: float

    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """Mean A F of the trained function, in latent units; noise excluded."""
        ntk = self.network.ntk(checked_inputs(self.train, x), self.train.x)
        return ntk @ (self.smoother @ self.fitted)

    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """S ⊗ P + Q₀ ⊗ (I − P): covariance of the trained function; noise excluded.

        S is a sum of squares, positive semi-definite by construction.

        Raises
        ------
        ValueError
            If x does not fit the training inputs, or initial functions are those of finite
            networks, whose covariance is not known.
        """
        spread, initial = self._covariances(x)
        unmoved = jnp.eye(len(self.moved), dtype=spread.dtype) - self.moved
        return jnp.einsum("ij,kl->ikjl", spread, self.moved) + jnp.einsum(
            "ij,kl->ikjl", initial, unmoved
        )

    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`.

        Raises
        ------
        ValueError
            As `covariance`.
        """
        spread, initial = (jnp.diagonal(each)[:, None] for each in self._covariances(x))
        share = jnp.diagonal(self.moved)[None, :]
        return spread * share + initial * (1 - share)

    def members(self, key: Key, *, num_members: int) -> Members:
        """Draw initial functions and targets, and train on them.

        ``stats`` holds each member's ``residual`` max |s + ξ − λ b|: what is left of the
        stationarity condition, and at the end of training rounding only.

        Parameters
        ----------
        key
            The same key gives the same members.
        num_members
            How many.
        """
        check_draws("num_members", num_members, self.train)
        key_initial, key_targets = jax.random.split(key)
        num_outputs = self.likelihood.num_outputs
        f0, functions = self.law.draw(
            key_initial, self.train.x, num_draws=num_members, num_outputs=num_outputs
        )
        noise = jnp.zeros_like(f0)
        if self.perturb_targets:
            noise = jax.random.normal(key_targets, f0.shape, f0.dtype)
        noise = self.target_variance**0.5 * noise
        moves = self.fitted[None] + noise - jnp.einsum("snc,cd->snd", f0, self.moved)
        coefficients = jnp.einsum("ij,sjc->sic", self.smoother, moves)
        stats = {"residual": self._residual(f0, self.train.targets[None] + noise, coefficients)}
        return Members(self.network, self.train, functions, coefficients, stats)

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw trained functions jointly over the rows of x: `members`, evaluated there."""
        check_draws("num_draws", num_draws, self.train, checked_inputs(self.train, x))
        members = self.members(key, num_members=num_draws)
        latent, _ = members.evaluate(x)
        progress(1.0)
        return Draws(latent, members.stats)

    @property
    def num_available(self) -> int | None:
        """One for a deterministic predictor, else unlimited."""
        return 1 if self.law.initial == "zero" and not self.perturb_targets else None

    @property
    def is_posterior(self) -> bool:
        """Whether this is randomised maximum a posteriori, trained to the end, on Gaussian noise.

        Its draws are the posterior's by Matheron's rule, which holds for Gaussian noise only.
        """
        randomised = self.law.initial == "ntk" and self.perturb_targets
        return randomised and isinstance(self.likelihood, Gaussian) and math.isinf(self.time)

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "ntk_ensemble",
            "prior_precision": self.prior_precision,
            "initial": self.law.initial,
            "initial_functions": self.law.kind,
            "perturb_targets": self.perturb_targets,
            "time": str(self.time),
            **self.network.settings(),
        }

    def _residual(
        self,
        f0: Float[Array, "s n c"],
        targets: Float[Array, "s n c"],
        coefficients: Float[Array, "s n c"],
    ) -> Float[Array, "s"]:
        """Return max |s(f₀ + Θ b) + ξ − λ b| of each member, by a fresh product."""
        f = f0 + jnp.einsum("ij,sjc->sic", self.network.ntk(self.train.x), coefficients)
        score = jax.vmap(jax.vmap(self.likelihood.score))(targets, f)
        return jnp.max(jnp.abs(score - self.prior_precision * coefficients), axis=(1, 2))

    @property
    def has_moments(self) -> bool:
        """Whether initial functions have an exact law, unlike those of finite networks."""
        return self.law.initial == "zero" or self.law.factor is not None

    def _covariances(self, x: AnyArray) -> tuple[Float[Array, "m m"], Float[Array, "m m"]]:
        """S, and Q₀ at x."""
        x_test = checked_inputs(self.train, x)
        A = self.network.ntk(x_test, self.train.x) @ self.smoother
        spread = self.target_variance * A @ A.T
        if self.law.initial == "zero":
            return spread, jnp.zeros_like(spread)
        factor = self.law.factor
        if factor is None:
            raise ValueError(
                "the covariance is that of exact initial functions: use initial_functions='exact'."
            )
        q_cross, q_test = self.law.kernel(self.train.x, x_test), self.law.kernel(x_test)
        known, conditional = conditional_covariance(factor, q_cross, q_test)
        left = known - A @ factor
        return spread + left @ left.T + conditional, q_test


def regression_ensemble(
    network: WideNetwork,
    likelihood: Gaussian,
    train: TrainingSet,
    prior_precision: float,
    initial: str,
    perturb_targets: bool,
    *,
    time: float,
    initial_functions: str,
) -> GaussianEnsemble:
    """Train on Gaussian noise until `time`: factor or diagonalise Θ once, cost n³.

    Raises
    ------
    ValueError
        If the problem has no solution that rounding does not hide.
    """
    kernel = network.kernel(train.x)
    noise = likelihood.noise_variance
    if perturb_targets and prior_precision > 0 and math.isinf(time):
        warn_of_hidden_noise(likelihood, jnp.diagonal(kernel.ntk) / prior_precision)
    smoother = (
        _inverse(kernel.ntk, prior_precision * noise)
        if math.isinf(time)
        else _finite_time(kernel.ntk, prior_precision, noise, time)
    )
    return GaussianEnsemble(
        likelihood, network, train,
        initial_law(network, kernel, initial, prior_precision, initial_functions),
        prior_precision, perturb_targets, time,
        fitted=train.targets,
        moved=likelihood.identified(train.targets.dtype),
        smoother=smoother,
        target_variance=noise if perturb_targets else 0.0,
    )  # fmt: skip


def interpolating_ensemble(
    network: WideNetwork,
    likelihood: Likelihood,
    train: TrainingSet,
    initial: str,
    *,
    initial_functions: str,
) -> GaussianEnsemble:
    """Train to the end without regularisation, on targets that a finite function reproduces.

    Raises
    ------
    ValueError
        If no finite function does, or Θ is singular.
    """
    fitted = likelihood.saturated(train.targets)
    kernel = network.kernel(train.x)
    return GaussianEnsemble(
        likelihood, network, train, initial_law(network, kernel, initial, 0.0, initial_functions),
        0.0, False, jnp.inf,
        fitted=fitted,
        moved=likelihood.identified(fitted.dtype),
        smoother=_inverse(kernel.ntk, 0.0),
        target_variance=0.0,
    )  # fmt: skip


def _inverse(ntk: Float[Array, "n n"], ridge: float) -> Float[Array, "n n"]:
    """(Θ + ridge I)⁻¹, in float64 whatever the dtype of Θ, and exact beside outlying points."""
    with jax.enable_x64(True):
        wide = ntk.astype(jnp.float64)
        eye = jnp.eye(len(wide), dtype=wide.dtype)
        # What rounding makes of a zero eigenvalue is no solution to be had.
        roots = jnp.sqrt(jnp.diagonal(wide) + ridge)
        scaled = (wide + ridge * eye) / roots[:, None] / roots[None, :]
        smallest, largest = jnp.linalg.eigvalsh(scaled)[jnp.array([0, -1])]
        rounding = len(wide) * float(jnp.finfo(ntk.dtype).eps)
        if not bool(smallest > rounding):
            raise ValueError(_singular(ridge, float(smallest), float(largest), ntk.dtype))
        factor = cholesky(scaled, name="the NTK with its ridge", remedy="remove repeated inputs")
        inverse = cho_solve((factor, True), eye) / roots[:, None] / roots[None, :]
        return inverse.astype(ntk.dtype)


def _singular(ridge: float, smallest: float, largest: float, dtype: jnp.dtype) -> str:
    cause = "prior_precision is zero: use prior_precision > 0, a finite time, "
    if ridge > 0:
        cause = (
            f"prior_precision · noise_variance = {ridge:.1e} is below its rounding: "
            f"{more_digits(dtype)}raise one of the two, "
        )
    return (
        f"the NTK is singular in {jnp.dtype(dtype).name} (scaled to a diagonal of one: smallest "
        f"eigenvalue {smallest:.1e}, largest {largest:.1e}) and {cause}"
        "or remove repeated inputs."
    )


def _finite_time(
    ntk: Float[Array, "n n"], prior_precision: float, noise: float, time: float
) -> Float[Array, "n n"]:
    """φ(Θ) by eigenvalues: t/σ² · (1 − exp(−z)) / z at z = t (e/σ² + λ), which is t/σ² at z = 0."""
    eigenvalues, vectors = eigenbasis(ntk, name="the NTK")
    require_resolved(
        eigenvalues, ntk.dtype, time=time, rate=1 / noise, prior_precision=prior_precision
    )
    z = time * (jnp.maximum(eigenvalues, 0) / noise + prior_precision)
    share = jnp.where(z > 0, -jnp.expm1(-z) / jnp.where(z > 0, z, 1), 1)
    return (vectors * (time / noise * share)[None, :]) @ vectors.T
