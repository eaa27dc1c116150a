"""The NTK ensemble: wide networks trained from random initialisations, in closed form.

Training minimises −Σ log p(yᵢ | f(xᵢ)) + ½ λ ‖θ − θ₀‖²; the trained function is
f₀(x) + K(x, X) a with K = Θ / λ and a = s(f∞(X)). The initial function f₀ is random:

- ``"nngp"``: f₀ ~ GP(0, Q), ordinary random initialisation;
- ``"ntk"``: f₀ ~ GP(0, K), as in Bayesian deep ensembles;
- ``"zero"``: f₀ = 0, symmetrised initialisation; the trained function is the posterior mode.

References
----------
Calvo-Ordoñez et al. 2026, arXiv 2605.17606. Lee et al. 2019, arXiv 1902.06720. He,
Lakshminarayanan, Teh 2020, arXiv 2007.05864 (``"ntk"``, perturbed targets).
"""

import math

from ntkbayes._checks import check_choice, check_positive
from ntkbayes._problem import infinite_width, training_set
from ntkbayes._types import AnyArray, typed
from ntkbayes.ensembles.convex import ConvexEnsemble, convex_ensemble
from ntkbayes.ensembles.flow import FlowEnsemble, flow_ensemble
from ntkbayes.ensembles.gaussian import (
    GaussianEnsemble,
    interpolating_ensemble,
    regression_ensemble,
)
from ntkbayes.ensembles.initial import INITIAL, INITIAL_FUNCTIONS
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import Network
from ntkbayes.solvers import default_tolerance

__all__ = ["ntk_ensemble"]


@typed
def ntk_ensemble(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    initial: str = "nngp",
    perturb_targets: bool = False,
    time: float = math.inf,
    initial_functions: str = "exact",
    tolerance: float | None = None,
) -> GaussianEnsemble | ConvexEnsemble | FlowEnsemble:
    """Return the distribution of trained predictors over random initialisations.

    Parameters
    ----------
    network
        Supplies the kernels Q and Θ; finite networks go to `ntkbayes.linearized_ensemble`.
    likelihood
        `Gaussian` has exact moments; any other is one convex problem per draw (one integration
        if `time` is finite), or exact as well if `prior_precision` is zero and `time` infinite.
    x, y
        Training inputs (n d), and targets: values (n,) or (n c), class indices (n,), or soft
        targets (n c).
    prior_precision
        λ, the weight of ½‖θ − θ₀‖² against the *summed* loss. Zero is possible for `Gaussian`, for
        targets that a finite function reproduces (soft targets, see `smooth_labels`), and for a
        finite `time`.
    initial
        Law of the initial function: ``"nngp"``, ``"ntk"`` or ``"zero"``.
    perturb_targets
        Train each member on its own noisy targets: y + N(0, σ²), or labels resampled at the mode.
    time
        Training time > 0 of gradient flow at unit rate on the summed loss; infinite: to the end.
    initial_functions
        ``"exact"`` draws them from their Gaussian law, (n + m)³ work for m test points; for
        n + m beyond some ten thousand, ``"networks"`` takes finite networks of `network`'s width.
    tolerance
        Largest error of a member at the training points, in latent units such as logits, where
        there is no closed form: ``stats["error_bound"]`` times √K(x, x), which holds at every
        input. Default: 1e-3 in float64, 1e-2 in float32, far below Monte-Carlo error. Where
        rounding leaves more, up to 0.05 is a warning.

    Raises
    ------
    ValueError
        If the network has no infinite-width kernels, the data do not fit the likelihood, a setting
        is out of range, the settings exclude a finite solution, or a member may be off by more
        than 0.05 and `tolerance`.

    Examples
    --------
    >>> ensemble = nb.ntk_ensemble(*model, prior_precision=1.0)
    >>> ensemble.sample(key, data.x_test, num_draws=50).shape
    (50, 300, 2)

    With Gaussian noise, initial functions of the NTK's law and perturbed targets make it Bayes:

    >>> settings = {"prior_precision": 1.0, "initial": "ntk", "perturb_targets": True}
    >>> bayesian = nb.ntk_ensemble(*model_sine, **settings)
    >>> gp = nb.gp_posterior(*model_sine, prior_precision=1.0)
    >>> np.allclose(bayesian.variance(sine.x_test), gp.variance(sine.x_test))
    True
    """
    wide_network = infinite_width(network)
    check_choice("initial", initial, INITIAL)
    check_choice("initial_functions", initial_functions, INITIAL_FUNCTIONS)
    check_positive("prior_precision", prior_precision, or_zero=True)
    if not time > 0:
        raise ValueError(f"time must be positive, but is {time}.")
    train = training_set(likelihood, x, y)
    if prior_precision == 0 and initial == "ntk":
        raise ValueError("initial='ntk' draws from GP(0, Θ/λ): prior_precision must be positive.")
    if tolerance is None:
        tolerance = default_tolerance(train.x.dtype)
    check_positive("tolerance", tolerance)
    settings = (float(prior_precision), initial, perturb_targets)
    functions = {"initial_functions": initial_functions}
    if isinstance(likelihood, Gaussian):
        return regression_ensemble(
            wide_network, likelihood, train, *settings, time=float(time), **functions
        )
    if perturb_targets and prior_precision == 0:
        raise ValueError(
            "perturb_targets needs prior_precision > 0 here: targets are perturbed about the mode, "
            "and without regularisation a perturbed target may be one that no finite function "
            "reproduces."
        )
    if not math.isinf(time):
        return flow_ensemble(
            wide_network, likelihood, train, *settings,
            time=float(time), tolerance=tolerance, **functions,
        )  # fmt: skip
    if prior_precision > 0:
        return convex_ensemble(
            wide_network, likelihood, train, *settings, tolerance=tolerance, **functions
        )
    return interpolating_ensemble(wide_network, likelihood, train, initial, **functions)
