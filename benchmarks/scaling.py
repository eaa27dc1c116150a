"""How cost grows with the number of training points, of draws, and of test points.

Scikit-learn's digits, repeated with noise to n points, ten classes, λ = 0.1, a plain ensemble in
float64 at its default tolerance. Three series, each with the exponent of a power law fitted
to its upper half:

- ``points``: time and peak memory against n, for the fit (kernel, mode, factorisations) and for
  64 members, and the GEMM equivalents of a member, which no machine disturbs;
- ``draws``: time of members against their number at n = 1,000;
- ``test points``: time and memory of exact functions at m points, up to n + m = 10,000.

Every size runs in a process of its own, so that peak memory is its own. Times are those of a second
call, beyond 2,000 training points of the first one, where compilation no longer matters.

    python benchmarks/scaling.py
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np

POINTS = (250, 500, 1000, 2000, 4000, 8000)
DRAWS = (16, 32, 64, 128, 256, 512, 1024)
TEST_POINTS = (1000, 2000, 4000, 9000)
NUM_TRAIN = 1000
NUM_MEMBERS = 64
PRECISION = 0.1


def data(num_points):
    """Digits and noisy copies of them, centred, divided by one common scale."""
    import sklearn.datasets

    x, y = sklearn.datasets.load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    rows = np.resize(generator.permutation(len(x)), num_points)
    x = x[rows] + generator.normal(size=(num_points, x.shape[1]))
    x = x - x.mean(axis=0)
    return x / np.sqrt(np.mean(x**2)), y[rows]


def measure(num_train, num_draws, num_test):
    """Fit, members and evaluation: seconds, work, and the process's peak memory."""
    import jax

    import ntkbayes as nb

    jax.config.update("jax_enable_x64", True)
    x, y = data(num_train + num_test)
    result = {"num_train": num_train, "num_draws": num_draws, "num_test": num_test}

    def seconds(function):
        if num_train <= 2000:
            jax.block_until_ready(function())
        start = time.perf_counter()
        value = jax.block_until_ready(function())
        return value, time.perf_counter() - start

    ensemble, result["seconds_fit"] = seconds(
        lambda: nb.ntk_ensemble(
            nb.dense_network(), nb.Categorical(10), x[:num_train], y[:num_train],
            prior_precision=PRECISION,
        )
    )  # fmt: skip
    members, result["seconds_members"] = seconds(
        lambda: ensemble.members(jax.random.key(0), num_members=num_draws)
    )
    if num_test:
        _, result["seconds_evaluate"] = seconds(lambda: members.evaluate(x[num_train:])[0])
    work = np.asarray(members.stats["gemm_equivalents"])
    result["gemm_equivalents_mean"] = float(work.mean())
    result["error_bound_max"] = float(np.max(members.stats["error_bound"]))
    result["peak_gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return result


def exponent(sizes, values):
    """Slope of the upper half in logarithms."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def draw_figure(series, path):
    """One panel per series, with the exponents in the legend."""
    import matplotlib.pyplot as plt

    lines = {
        "points": ("num_train", {
            "seconds_fit": "fit, s", "seconds_members": f"{NUM_MEMBERS} members, s",
            "gemm_equivalents_mean": "products per member", "peak_gigabytes": "peak memory, GB",
        }),
        "draws": ("num_draws", {"seconds_members": "members, s", "seconds_fit": "fit, s"}),
        "test points": ("num_test", {
            "seconds_evaluate": "functions at test points, s", "peak_gigabytes": "peak memory, GB",
        }),
    }  # fmt: skip
    labels = {
        "points": "training points n",
        "draws": f"members (n = {NUM_TRAIN:,})",
        "test points": f"test points m (n = {NUM_TRAIN:,})",
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.8), layout="constrained")
    for axis, (name, (size, quantities)) in zip(axes, lines.items(), strict=True):
        sizes = np.array([row[size] for row in series[name]])
        for number, (key, label) in enumerate(quantities.items()):
            values = np.array([row[key] for row in series[name]])
            slope = round(exponent(sizes, values), 1) + 0.0  # never −0.0
            axis.loglog(
                sizes, values, marker="os^D"[number], linestyle=("-", "--", ":", "-.")[number],
                color=("#0072B2", "#D55E00", "#009E73", "#CC79A7")[number],
                label=f"{label} (exponent {slope:.1f})",
            )  # fmt: skip
        axis.set_xticks(sizes, [f"{s:,}" for s in sizes])
        axis.minorticks_off()
        axis.set_xlabel(labels[name])
        axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Cost of a classification ensemble: digits, c = 10, λ = 0.1")
    figure.savefig(path, dpi=150)


def main():
    """Run, print, write JSON and the figure."""
    from common import add_out, write_results  # not in the processes that measure memory

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=10_000, help="leave out larger sizes")
    add_out(parser)
    options = parser.parse_args()

    sizes = {
        "points": [(n, NUM_MEMBERS, 0) for n in POINTS],
        "draws": [(NUM_TRAIN, s, 0) for s in DRAWS],
        "test points": [(NUM_TRAIN, NUM_MEMBERS, m) for m in TEST_POINTS],
    }
    series = {name: [] for name in sizes}
    context = multiprocessing.get_context("spawn")
    for name, rows in sizes.items():
        for row in rows:
            if max(row) > options.largest:
                continue
            with context.Pool(1) as pool:
                series[name].append(pool.apply(measure, row))
            print(name, series[name][-1], flush=True)

    from ntkbayes.experiment.environment import environment

    result = {
        "prior_precision": PRECISION,
        "series": series,
        "environment": environment(),
    }
    write_results(options.out, "scaling", result)
    draw_figure(series, options.out / "scaling.png")


if __name__ == "__main__":
    main()
