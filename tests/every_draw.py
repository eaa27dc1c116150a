"""Draws of every stochastic method at small size; as a script, written to the NPZ file it is given.

A second argument is the number of cores that the script may use.
Double precision; trained members, modes and chains are short, so that rounding is not amplified.
"""

import os
import sys
import warnings

if __name__ == "__main__" and len(sys.argv) > 2:  # before JAX starts its threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])

import jax
import numpy as np

import ntkbayes as nb


def every_draw():
    """Return name → draws, or what else a key decides."""
    key = jax.random.key(3)
    data, line = nb.load_dataset("moons", num_train=24), nb.load_dataset("sine", num_train=20)
    network, x, t = nb.dense_network(depth=1, width=8), data.x_test[:10], line.x_test[::20]
    classes = (network, nb.Categorical(2), data.x_train, data.y_train)
    regression = (network, nb.Gaussian(0.1), line.x_train, line.y_train)
    settings = {"prior_precision": 1.0}
    keyed = settings | {"key": key}
    steps = keyed | {"num_warmup": 3, "num_draws": 3, "num_chains": 4}
    bayes = settings | {"initial": "ntk", "perturb_targets": True}
    networks = settings | {"initial_functions": "networks"}
    mode = nb.map_estimate(*classes, **keyed)
    selected = nb.select_hyperparameters(*classes, key=key, num_restarts=2)
    sweep = nb.lazy.width_sweep(
        nb.dense_network(depth=1), data.x_train, data.y_train, x,
        key=key, widths=(4, 8), num_seeds=2, time=1.0, num_records=3,
    )  # fmt: skip
    predictors = {
        "ntk_ensemble": nb.ntk_ensemble(*classes, **bayes),
        "ntk_ensemble of networks": nb.ntk_ensemble(*classes, **networks),
        "ntk_ensemble in time": nb.ntk_ensemble(*classes, **settings, time=1.0),
        "linearized_ensemble": nb.linearized_ensemble(*classes, **keyed, num_members=12),
        "deep_ensemble": nb.deep_ensemble(*classes, **keyed, num_members=12),
        "laplace": nb.laplace(*classes, **settings),
        "gp_posterior": nb.gp_posterior(*classes, **settings),
        "hmc": nb.hmc(*classes, **steps),
        "hmc over weights": nb.hmc(*classes, **steps, space="weight"),
        **{
            f"linearized_laplace, {structure}": nb.linearized_laplace(
                *classes, **settings, params=mode.params, hessian_structure=structure
            )
            for structure in ("full", "kron", "diag")
        },
    }
    of_line = {
        "ntk_ensemble of a line": nb.ntk_ensemble(*regression, **bayes),
        "gp_posterior of a line": nb.gp_posterior(*regression, **settings),
    }
    numbers = sweep.table.select_dtypes("number").to_numpy(float)
    return {
        "map_estimate": np.concatenate([np.ravel(w) for w in jax.tree.leaves(mode.params)]),
        "select_hyperparameters": np.array([*selected.values.values(), selected.value]),
        "width_sweep": numbers,
        **{name: np.asarray(p.sample(key, x, num_draws=12)) for name, p in predictors.items()},
        **{name: np.asarray(p.sample(key, t, num_draws=12)) for name, p in of_line.items()},
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    np.savez(sys.argv[1], **every_draw())
