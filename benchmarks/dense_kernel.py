"""Closed-form kernels of a dense ReLU network against neural-tangents' jitted ``kernel_fn``.

Symmetric kernels of n points with d features in float32, of a network with two hidden layers: NNGP
and NTK together, and the NTK alone, beside the bare product X Xᵀ, without which neither can be had.
All run in turn in one process on the same data; times are medians over rounds, and only their
ratios count. Memory is what XLA plans for results and temporaries. Errors are relative to
√(K₁₁K₂₂), against float64 on a subset to which exact and near copies are added.

    python benchmarks/dense_kernel.py --num-points 4000 --num-features 784
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from common import add_out, write_results

import ntkbayes as nb
from ntkbayes.experiment.environment import environment
from ntkbayes.networks.neural_tangents import stax

NETWORK = nb.dense_network(depth=2, activation="relu")
LAYERS = [stax.Dense(1, NETWORK.weight_scale, NETWORK.bias_scale), stax.Relu()] * NETWORK.depth
_, _, KERNEL_FN = stax.serial(*LAYERS, stax.Dense(1, 1.0, NETWORK.bias_scale))

CANDIDATES = {
    "X Xᵀ": lambda x: x @ x.T,
    "ntkbayes NTK": NETWORK.ntk,
    "ntkbayes both": lambda x: tuple(jax.tree.leaves(NETWORK.kernel(x))),
    "neural-tangents NTK": lambda x: KERNEL_FN(x, None, "ntk"),
    "neural-tangents both": lambda x: tuple(KERNEL_FN(x, None, ("nngp", "ntk"))),
}


def points(num_points, num_features):
    """Ten clusters of correlated features, as images have."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(40, num_features))
    hidden = (
        generator.normal(size=(num_points, 40))
        + 2 * generator.normal(size=(10, 40)).repeat(-(-num_points // 10), axis=0)[:num_points]
    )
    return (hidden @ mixing + 0.5 * generator.normal(size=(num_points, num_features))) / 10


def medians(functions, x, rounds):
    """Median seconds of each function; all take their turn in every round."""
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(x))
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def errors(x):
    """Largest errors of each side's float32 NTK; changes to float64 at its end.

    neural-tangents computes in float64 wherever that is enabled, so the float32 ones come first.
    """
    x = np.concatenate([x[:200], x[:20], x[20:40] * (1 + 1e-4)]).astype(np.float32)
    names = ("ntkbayes NTK", "neural-tangents NTK")
    single = {name: np.asarray(CANDIDATES[name](jnp.asarray(x)), dtype=float) for name in names}
    jax.config.update("jax_enable_x64", True)
    exact, reference = (np.asarray(CANDIDATES[name](jnp.asarray(x, float))) for name in names)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    near = np.abs(scale - exact) < 1e-3 * scale
    found = {"float64_difference": float((np.abs(exact - reference) / scale)[~near].max())}
    for name in names:
        relative = np.abs(single[name] - exact) / scale
        found[name] = {
            "distinct": float(relative[~near].max()),
            "coinciding": float(relative[near].max()),
        }
    return found


def main():
    """Run, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-points", type=int, default=4000)
    parser.add_argument("--num-features", type=int, default=784)
    parser.add_argument("--rounds", type=int, default=7)
    add_out(parser)
    options = parser.parse_args()

    x = jnp.asarray(points(options.num_points, options.num_features), jnp.float32)
    compiled = {name: jax.jit(function).lower(x).compile() for name, function in CANDIDATES.items()}
    medians(compiled, x, 1)
    seconds = medians(compiled, x, options.rounds)
    memory = {}
    for name, function in compiled.items():
        planned = function.memory_analysis()
        memory[name] = (planned.output_size_in_bytes + planned.temp_size_in_bytes) / x.nbytes
    bare = seconds["X Xᵀ"]
    print("                        seconds   / X Xᵀ   memory / X")
    for name, value in seconds.items():
        print(f"{name:22} {value:9.3f} {value / bare:8.2f} {memory[name]:10.1f}")
    ratios = {
        kind: seconds[f"neural-tangents {kind}"] / seconds[f"ntkbayes {kind}"]
        for kind in ("NTK", "both")
    }
    for kind, ratio in ratios.items():
        print(f"neural-tangents / ntkbayes, {kind}: {ratio:.2f}×")
    error = errors(np.asarray(x))
    print(json.dumps(error, indent=2))
    result = {
        "num_points": options.num_points,
        "num_features": options.num_features,
        "rounds": options.rounds,
        "median_seconds": seconds,
        "ratios": ratios,
        "ntk_to_bare_product": seconds["ntkbayes NTK"] / bare,
        "memory_in_inputs": memory,
        "errors": error,
        "environment": environment() | {"dtype": "float32"},
    }
    write_results(options.out, "dense_kernel", result)


if __name__ == "__main__":
    main()
