"""What one member of a classification ensemble costs, with a bound on its error.

Digits, n training points, c = 10, float64. Work is counted in GEMM equivalents (one product of K
with (n, c) numbers), which no busy machine can disturb:

- per member: drawing f₀ at the training points, the solver (every application of the
  preconditioner, in float32 half of one in float64), and the certificates that evaluate the
  definition with a fresh product;
- shared by all members: kernel, mode and factorisations, by their time in units of one equivalent.

The peers run in the same process on the same data: one width-1024 network trained by the package's
own trainer to its default tolerance, far looser than a member's (a residual of 0.05 leaves at most
0.25 % of the regulariser's height), and scikit-learn's one-vs-rest `GaussianProcessClassifier` on
the same kernel, which finds one mode per class and no draw.

    python benchmarks/classification_ensemble.py --num-train 1437 --num-draws 256
"""

import argparse
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from common import PrecomputedKernel, add_out, digits, measured, write_results
from sklearn.gaussian_process import GaussianProcessClassifier

import ntkbayes as nb
from ntkbayes.experiment.environment import environment
from ntkbayes.solvers import default_tolerance

PRECISIONS = (1.0, 0.1, 0.01)


def seconds_per_equivalent(network, x):
    """Median seconds of one product of K with (n, 10) numbers, many of them side by side."""
    k, vectors = network.ntk(jnp.asarray(x)), jnp.ones((len(x), 10 * 64))
    product = jax.jit(jnp.matmul)
    return statistics.median(measured(lambda: product(k, vectors)).seconds for _ in range(9)) / 64


def ensemble(network, x, y, prior_precision, initial, num_draws):
    """Certificates, time and memory of one ensemble."""

    def fit():
        return nb.ntk_ensemble(
            network, nb.Categorical(10), x, y, prior_precision=prior_precision, initial=initial,
            perturb_targets=initial == "ntk",
        )  # fmt: skip

    fitted, fit_seconds, fit_gigabytes = measured(fit)
    unit = seconds_per_equivalent(network, x)
    members, seconds, gigabytes = measured(
        lambda: fitted.members(jax.random.key(0), num_members=num_draws)
    )
    stats = members.stats
    work = np.asarray(stats["gemm_equivalents"]) + 1  # and the product that draws f₀
    shared = fit_seconds / unit / num_draws
    return {
        "prior_precision": prior_precision,
        "initial": initial,
        "perturb_targets": initial == "ntk",
        "num_draws": num_draws,
        "gemm_equivalents_mean": float(work.mean()),
        "gemm_equivalents_max": float(work.max()),
        "iterations_mean": float(np.mean(stats["iterations"])),
        "error_bound_max": float(np.max(stats["error_bound"])),
        "shared_gemm_equivalents_per_member": shared,
        "seconds_fit": fit_seconds,
        "seconds_per_gemm_equivalent": unit,
        "seconds_per_member": seconds / num_draws,
        "seconds_per_member_with_fit": (seconds + fit_seconds) / num_draws,
        "gigabytes_fit": fit_gigabytes,
        "gigabytes_members": gigabytes,
    }


def scikit_learn(network, x, y, prior_precision):
    """Time and memory of scikit-learn's one-vs-rest modes on the same kernel."""
    model = GaussianProcessClassifier(
        PrecomputedKernel(network, prior_precision), optimizer=None, multi_class="one_vs_rest"
    )
    found = measured(lambda: model.fit(x, y), warm_up=False)
    return {"seconds": found.seconds, "gigabytes": found.gigabytes}


def trained_network(x, y, prior_precision, max_steps):
    """Time and memory of training one width-1024 network, and the gradient it reached."""
    wide = nb.dense_network(width=1024)

    def train():
        return nb.deep_ensemble(
            wide, nb.Categorical(10), jnp.asarray(x), y, prior_precision=prior_precision,
            num_members=1, key=jax.random.key(0), max_steps=max_steps,
        )  # fmt: skip

    trained, seconds, gigabytes = measured(train, warm_up=False)
    return {
        "seconds": seconds,
        "gigabytes": gigabytes,
        "residual": float(trained.residual.max()),
        "num_steps": int(trained.num_steps.max()),
    }


def main():
    """Run, print a table, write JSON."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-train", type=int, default=1437)
    parser.add_argument("--num-draws", type=int, default=256)
    parser.add_argument("--max-steps", type=int, default=1000)
    parser.add_argument("--skip-peers", action="store_true")
    add_out(parser)
    options = parser.parse_args()

    x, y = digits(options.num_train)
    network = nb.dense_network()
    rows = []
    print("   λ  initial   GEMM/member (max)  + shared  iterations     bound   s/member")
    for prior_precision in PRECISIONS:
        for initial in ("nngp", "ntk"):
            row = ensemble(network, x, y, prior_precision, initial, options.num_draws)
            rows.append(row)
            print(
                f"{prior_precision:5g}  {initial:7} {row['gemm_equivalents_mean']:12.1f} "
                f"({row['gemm_equivalents_max']:.0f}) "
                f"{row['shared_gemm_equivalents_per_member']:9.1f} {row['iterations_mean']:10.1f} "
                f"{row['error_bound_max']:10.1e} {row['seconds_per_member_with_fit']:10.4f}",
                flush=True,
            )
    peers = {}
    if not options.skip_peers:
        peers["scikit_learn"] = scikit_learn(network, x, y, 1.0)
        peers["trained_network"] = trained_network(x, y, 1.0, options.max_steps)
        member = rows[0]["seconds_per_member_with_fit"]
        for name, peer in peers.items():
            print(f"{name.replace('_', ' ')} / one member: {peer['seconds'] / member:.0f}×")
    result = {
        "num_train": options.num_train,
        "tolerance": default_tolerance(jnp.float64),
        "ensembles": rows,
        "peers": peers,
        "environment": environment(),
    }
    write_results(options.out, "classification_ensemble", result)


if __name__ == "__main__":
    main()
