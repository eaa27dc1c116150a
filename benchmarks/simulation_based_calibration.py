"""Are posteriors calibrated for data from their own prior? Simulation-based calibration.

Functions are drawn from the prior GP(0, Θ/λ) at n training points and one test point, labels from
the likelihood. If a method samples the posterior, the rank of the true latent difference f₁ − f₀ at
the test point among the method's draws is uniform over many repetitions. The figure shows the
distribution function of the ranks minus the uniform one, with the band that 95 % of uniform samples
stay in throughout.

    python benchmarks/simulation_based_calibration.py --num-repetitions 300

References
----------
Talts et al. 2018, arXiv 1804.06788. Säilynoja, Bürkner, Vehtari 2022, arXiv 2103.10522 (the band).
"""

import argparse

import jax
import numpy as np
from common import add_out, write_results
from scipy.stats import kstest

import ntkbayes as nb
from ntkbayes.evaluation.plots.style import method_colors, new_figure, png, styled
from ntkbayes.experiment.environment import environment

NUM_TRAIN, NUM_CLASSES, PRIOR_PRECISION = 20, 3, 0.3
NUM_RANKED = 99
METHODS = {
    "HMC": lambda key: (nb.hmc, {"key": key, "num_warmup": 150, "num_draws": 100}),
    "Bayesian NTK ensemble": lambda key: (
        nb.ntk_ensemble,
        {"initial": "ntk", "perturb_targets": True},
    ),
    "GP": lambda key: (nb.gp_posterior, {}),
    "Laplace": lambda key: (nb.laplace, {}),
    "NTK ensemble": lambda key: (nb.ntk_ensemble, {}),
}


def simulate(key, network):
    """Draw inputs, labels, and the true function at the last input from the prior."""
    key_x, key_f, key_y = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (NUM_TRAIN + 1, 2))
    k = np.asarray(network.ntk(x)) / PRIOR_PRECISION
    factor = np.linalg.cholesky(k + 1e-9 * np.trace(k) * np.eye(len(k)))
    f = factor @ np.asarray(jax.random.normal(key_f, (NUM_TRAIN + 1, NUM_CLASSES)))
    y = np.asarray(jax.random.categorical(key_y, f[:NUM_TRAIN]))
    return np.asarray(x), y, f[NUM_TRAIN]


def rank(method, key, network, x, y, truth):
    """Rank of the true f₁ − f₀ at the last input among independent draws, between 0 and 1."""
    key_fit, key_draw, key_tie = jax.random.split(key, 3)
    function, settings = METHODS[method](key_fit)
    predictor = function(
        network, nb.Categorical(NUM_CLASSES), x[:NUM_TRAIN], y, prior_precision=PRIOR_PRECISION,
        **settings,
    )  # fmt: skip
    num_draws = predictor.num_available or NUM_RANKED + 1
    latent = np.asarray(predictor.sample(key_draw, x[NUM_TRAIN:], num_draws=num_draws))[:, 0]
    margins = (latent[:, 1] - latent[:, 0])[:: num_draws // NUM_RANKED][:NUM_RANKED]
    below = int(np.sum(margins < truth[1] - truth[0]))
    return (below + float(jax.random.uniform(key_tie))) / (NUM_RANKED + 1)


def band(num_repetitions, num_simulations=4000):
    """Half the width of the simultaneous 95 % band, as a function of the position."""
    z = np.linspace(0, 1, NUM_RANKED + 2)[1:-1]
    uniform = np.random.default_rng(0).uniform(size=(num_simulations, num_repetitions))
    difference = (uniform[:, :, None] < z).mean(axis=1) - z
    scale = np.sqrt(z * (1 - z) / num_repetitions)
    largest = np.quantile(np.abs(difference / scale).max(axis=1), 0.95)
    return z, largest * scale


@styled
def draw_figure(ranks):
    """Draw one panel per method."""
    colors = method_colors(ranks)
    z, half = band(len(next(iter(ranks.values()))))
    figure = new_figure(2.3 * len(ranks), 2.6)
    panels = figure.subplots(1, len(ranks), sharey=True)
    for axes, (name, values) in zip(panels, ranks.items(), strict=True):
        difference = (np.asarray(values)[:, None] < z).mean(axis=0) - z
        axes.fill_between(z, -half, half, color="0.88", linewidth=0)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.plot(z, difference, color=colors[name])
        axes.set(title=name, xlabel="rank of the truth", xlim=(0, 1), xticks=(0, 0.5, 1))
    panels[0].set_ylabel("distribution of ranks\nminus uniform")
    return figure


def main():
    """Simulate, rank, draw, write JSON."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-repetitions", type=int, default=300)
    add_out(parser)
    options = parser.parse_args()
    network = nb.dense_network()
    ranks = {name: [] for name in METHODS}
    done, seed = 0, 0
    while done < options.num_repetitions:
        x, y, truth = simulate(jax.random.key(seed), network)
        seed += 1
        # One class only is refused; leaving out labels keeps ranks given the others uniform.
        if len(np.unique(y)) < 2:
            continue
        for name in METHODS:
            key = jax.random.fold_in(jax.random.key(seed), 1)
            ranks[name].append(rank(name, key, network, x, y, truth))
        done += 1
        if done % 20 == 0:
            print(f"{done} of {options.num_repetitions}", flush=True)
    tests = {name: float(kstest(values, "uniform").pvalue) for name, values in ranks.items()}
    print(tests)
    (options.out / "simulation_based_calibration.png").write_bytes(png(draw_figure(ranks)))
    write_results(
        options.out,
        "simulation_based_calibration",
        {
            "num_train": NUM_TRAIN,
            "prior_precision": PRIOR_PRECISION,
            "num_repetitions": done,
            "num_skipped": seed - done,
            "kolmogorov_smirnov_p_values": tests,
            "ranks": ranks,
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
