"""Are standard errors and p-values true? Every metric, by simulation with a known truth.

Predictors are fixed functions of a test point; test sets of 50, 200 and 1,000 points are drawn anew
in every repetition. *Coverage*: how often value ± 1.96 standard errors holds the value in the
population (0 for calibration errors of a calibrated predictor, else that of 40,000 points). *Null
rate*: how often the paired p-value of two predictors that are equally good in the population, one
the mirror image of the other, is at most 0.05. Classes are 2, 4 or 10, labels drawn from the
predictions themselves (calibrated) or from flatter ones (over-confident); likewise regressions and
counts.

Sets with hardly a wrong answer come on their own, of 20, 50 and 200 points: predictors that are
mostly sure, and counts that are mostly 0, with intervals by Student's quantile as `num_units` has
them. Resamples know little of such sets (`ntkbayes.evaluation.stakes`).

Calibration errors face another question: of two predictors that are over-confident by 0.05 at every
point, one of them sure (confidence 0.93 to 0.99) and one not (0.55 to 0.75), how often does the
less sure one have the lower value? One half would be right.

What is finished stays in `--out`, from which the same command continues.

    python benchmarks/standard_errors.py
"""

import argparse
import json
import os
import time
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.special
import scipy.stats
from common import add_out, write_results

from ntkbayes.evaluation import METRICS, metrics, mixtures
from ntkbayes.evaluation.comparison import num_units, significance
from ntkbayes.evaluation.measures import calibration_floor, distance_measures, measures
from ntkbayes.evaluation.metrics.resampling import error_quantile, spread, two_sided_p_value
from ntkbayes.evaluation.predictive import ClassSummary
from ntkbayes.evaluation.stakes import distance_stakes, stakes, unseen_difference, unseen_error
from ntkbayes.experiment.environment import environment

SIZES = (50, 200, 1000)
CLASSES = (2, 4, 10)
RARE_SIZES = (20, 50, 200)
RARE_METRICS = (
    "accuracy", "nll", "joint_nll", "dyadic_nll", "scaled_nll", "brier", "ece_squared",
    "confidence_gap", "aurc", "augrc", "crps",
)  # fmt: skip
NUM_DRAWS, NUM_FEATURES, NUM_POPULATION, NUM_RESAMPLES = 20, 3, 40_000, 100
NOISE, WIDER, TEMPERATURE = 0.5, 1.5, 2.0
UNBIASED = ("ece_squared", "ece_debiased", "temperature_gain", "confidence_gap")
"""Calibration errors without a floor that are 0 for a calibrated predictor all the same."""


def _draws(rng, num_points, num_outputs, scale):
    """Latent draws (s m c) of two mirrored predictors and a reference, and what they are about."""
    directions = np.random.default_rng(1).normal(size=(NUM_DRAWS, NUM_FEATURES, num_outputs))
    features = rng.normal(size=(num_points, NUM_FEATURES))
    center = scale * rng.normal(size=(num_points, num_outputs))
    shared = 0.4 * np.einsum("mf,sfc->smc", features, directions)
    errors = 0.5 * rng.normal(size=(2, num_points, num_outputs))
    own = 0.4 * rng.normal(size=(NUM_DRAWS, num_points, num_outputs))
    return center + errors[0] + shared, center + errors[1] - shared, center + own


class Classes:
    """Labels from the predictions of the first predictor, or flatter ones of either."""

    task = "classification"

    def __init__(self, num_classes, *, scale=2.0):
        self.num_classes, self.scale = num_classes, scale

    def draw(self, rng, num_points):
        """Return draws and probabilities of two predictors and the reference."""
        latent = _draws(rng, num_points, self.num_classes, self.scale)
        return [scipy.special.softmax(f, axis=-1) for f in latent]

    def observe(self, rng, drawn, calibrated):
        """Draw labels."""
        a, b = (p.mean(axis=0) for p in drawn[:2])
        if not calibrated:
            which = rng.uniform(size=(len(a), 1)) < 0.5
            flatter = np.where(which, a, b) ** (1 / TEMPERATURE)
            a = flatter / flatter.sum(axis=1, keepdims=True)
        cumulative = a.cumsum(axis=1)[:, :-1]
        return (cumulative < rng.uniform(size=(len(a), 1))).sum(axis=1)

    def predictive(self, p, y):
        """Stand in for `Predictive`, from probabilities (s m c)."""
        summary = ClassSummary.of(p)
        total = scipy.special.entr(summary.mean).sum(axis=-1)
        return SimpleNamespace(
            is_classification=True, task="classification", observations=y, classes=summary,
            log_likelihood=np.log(p[:, np.arange(len(y)), y]),
            mutual_information=total - summary.expected_entropy,
            spread_distance=lambda other: _spread_distance(p, other.draws), draws=p, normal=None,
        )  # fmt: skip


def _spread_distance(p, q):
    """Distance at each point: between as many sorted draws, ½ Σ_c of the mean difference."""
    return 0.5 * np.abs(np.sort(p, axis=0) - np.sort(q, axis=0)).mean(axis=0).sum(axis=1)


class Targets:
    """Targets from the first predictor's distribution, or wider ones of either."""

    task = "regression"

    def draw(self, rng, num_points):
        """Return draws of two predictors and the reference."""
        return _draws(rng, num_points, 1, 1.0)

    def observe(self, rng, drawn, calibrated):
        """Draw targets."""
        a, b, _ = drawn
        which = np.ones(a.shape[1:], bool) if calibrated else rng.uniform(size=a.shape[1:]) < 0.5
        some = rng.integers(0, NUM_DRAWS, size=(1, *a.shape[1:]))
        center = np.where(which, *(np.take_along_axis(f, some, axis=0)[0] for f in (a, b)))
        scale = np.sqrt(NOISE) * (1 if calibrated else WIDER)
        return center + scale * rng.normal(size=center.shape)

    def predictive(self, latent, y):
        """Stand in for `Predictive`, from latent draws (s m c)."""
        noise = np.random.default_rng(0).normal(size=(3 * NUM_DRAWS, *y.shape))
        return SimpleNamespace(
            is_classification=False, task="regression", observations=y, latent=latent, moments=None,
            normal=None, pit=mixtures.pit(latent, np.full(y.shape, NOISE), y),
            mixture=(latent, np.full(y.shape, NOISE)),
            log_likelihood=scipy.stats.norm.logpdf(y, latent, np.sqrt(NOISE)).sum(axis=-1),
            new_observations=np.tile(latent, (3, 1, 1)) + np.sqrt(NOISE) * noise,
        )  # fmt: skip


class Counts:
    """Counts from the first predictor's distribution, or more dispersed ones of either."""

    task = "counts"

    def __init__(self, *, log_rate=1.0):
        self.log_rate = log_rate

    def draw(self, rng, num_points):
        """Return draws of two predictors and the reference: log rates, mostly of 1 to 10 counts."""
        return [self.log_rate + 0.5 * f for f in _draws(rng, num_points, 1, 0.7)]

    def observe(self, rng, drawn, calibrated):
        """Draw counts, of rates that vary by more than the predictors say if not calibrated."""
        a, b, _ = drawn
        which = np.ones(a.shape[1:], bool) if calibrated else rng.uniform(size=a.shape[1:]) < 0.5
        some = rng.integers(0, NUM_DRAWS, size=(1, *a.shape[1:]))
        log_rate = np.where(which, *(np.take_along_axis(f, some, axis=0)[0] for f in (a, b)))
        extra = 0.0 if calibrated else 0.5
        return rng.poisson(np.exp(log_rate + extra * rng.normal(size=log_rate.shape))).astype(float)

    def predictive(self, latent, y):
        """Stand in for `Predictive`, from log rates (s m 1)."""
        rates = np.exp(latent[..., 0])
        return SimpleNamespace(
            is_classification=False, task="counts", observations=y, latent=latent, moments=None,
            normal=None, rates=rates,
            log_likelihood=scipy.stats.poisson.logpmf(y[:, 0], rates),
        )  # fmt: skip


def bound(world, drawn, y, which):
    """Metrics and distances from the reference, as functions of weights."""
    found, reference = (world.predictive(drawn[i], y) for i in (which, 2))
    return measures(found) | distance_measures(found, reference)


def at_stake(world, drawn, y, which):
    """Find what hardly a wrong answer leaves unknown of them."""
    found, reference = (world.predictive(drawn[i], y) for i in (which, 2))
    return stakes(found) | distance_stakes(found, reference)


def population(world, calibrated):
    """Value of every metric in the population, and which of them chance makes positive."""
    rng = np.random.default_rng(12345)
    drawn = world.draw(rng, NUM_POPULATION)
    y = world.observe(rng, drawn, calibrated)
    weights = metrics.uniform_weights(NUM_POPULATION)
    truth = {name: float(f(weights)) for name, f in bound(world, drawn, y, 0).items()}
    few = world.draw(rng, 20)
    floors = calibration_floor(world.predictive(few[0], world.observe(rng, few, calibrated)))
    if calibrated:
        truth |= dict.fromkeys([*floors, *(name for name in UNBIASED if name in truth)], 0.0)
    return truth


def one_cell(world, truth, num_points, calibrated, num_repetitions, seed, *, student=False):
    """Coverage and, where labels favour neither predictor, null rate of metrics with a truth."""
    covered, significant = ({name: [] for name in truth} for _ in range(2))
    weights = metrics.bootstrap_weights(num_points, num_resamples=NUM_RESAMPLES)
    weights = np.concatenate([metrics.uniform_weights(num_points)[None], weights])
    for repetition in range(num_repetitions):
        rng = np.random.default_rng([seed, num_points, repetition])
        drawn = world.draw(rng, num_points)
        y = world.observe(rng, drawn, calibrated)
        a, b = (
            {name: f(weights) for name, f in bound(world, drawn, y, i).items() if name in names}
            for i, names in enumerate((truth, {} if calibrated else truth))
        )
        own, other = (at_stake(world, drawn, y, i) for i in range(2))
        for name, others in b.items():
            unseen = unseen_difference(own.get(name), other.get(name))
            significant[name].append(p_value(name, a[name], others, num_points, unseen))
        for name, values in a.items():
            error = spread(values[1:], num_units(name, num_points))
            error = np.hypot(error, unseen_error(own.get(name)))
            known = np.isfinite(values[0] + error)
            width = error_quantile(num_units(name, num_points)) if student else 1.96
            inside = abs(values[0] - truth[name]) <= width * error + 1e-9
            covered[name].append(float(inside) if known else np.nan)
    return {
        name: {"coverage": _share(covered[name]), "null_rate": _null_rate(significant[name])}
        for name in truth
    }


def detection_cell(num_points, num_repetitions, seed):
    """Return the same for scores that tell unseen inputs from test points."""
    functions = {"auroc": metrics.auroc, "aupr": metrics.aupr, "fpr95": metrics.fpr95}
    found = {name: ([], []) for name in functions}

    def scores(rng, m):
        inside, outside = rng.normal(size=m), 1 + rng.normal(size=m)
        return [tuple(s + 0.5 * rng.normal(size=m) for s in (inside, outside)) for _ in "ab"]

    many = np.random.default_rng(1)
    one = metrics.uniform_weights(NUM_POPULATION)
    first, _ = scores(many, NUM_POPULATION)
    truth = {name: float(f(*first, one, one)) for name, f in functions.items()}
    weights = [
        np.concatenate([
            metrics.uniform_weights(num_points)[None],
            metrics.bootstrap_weights(num_points, num_resamples=NUM_RESAMPLES, seed=s),
        ])
        for s in (0, 1)
    ]  # fmt: skip
    for repetition in range(num_repetitions):
        rng = np.random.default_rng([seed, num_points, repetition])
        a, b = scores(rng, num_points)
        for name, f in functions.items():
            values, others = f(*a, *weights), f(*b, *weights)
            error = spread(values[1:], num_points)
            found[name][0].append(float(abs(values[0] - truth[name]) <= 1.96 * error))
            found[name][1].append(p_value(name, values, others, num_points))
    return {
        name: {"coverage": _share(covered), "null_rate": _null_rate(p_values)}
        for name, (covered, p_values) in found.items()
    }


def p_value(name, values, others, num_points, unseen=0.0):
    """Return the paired p-value, also of metrics for which the package gives none."""
    found = significance(name, values, others, num_points, unseen=unseen)
    return two_sided_p_value(
        found["difference"], found["standard_error"], num_units(name, num_points)
    )


def _share(values):
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else None


def _null_rate(p_values):
    known = [p for p in p_values if np.isfinite(p)]
    return float(np.mean(np.array(known) <= 0.05)) if known else None


def diffuse_preferred(num_repetitions):
    """How often the less sure of two equally over-confident predictors has the lower value."""
    num_points, wins = 300, {}
    weights = metrics.uniform_weights(num_points)
    world = Classes(2)
    for repetition in range(num_repetitions):
        rng = np.random.default_rng([99, repetition])
        values = []
        for low, high in ((0.93, 0.99), (0.55, 0.75)):
            q = rng.uniform(low, high, num_points)
            y = (rng.uniform(size=num_points) > q - 0.05).astype(int)
            found = measures(world.predictive(np.stack([q, 1 - q], axis=1)[None], y))
            values.append({
                name: float(f(weights)) for name, f in found.items()
                if name in GAPS
            })  # fmt: skip
        for name in values[0]:
            wins.setdefault(name, []).append(values[1][name] < values[0][name])
    return {name: float(np.mean(each)) for name, each in wins.items()}


GAPS = (
    "ece_squared", "smooth_ece", "ece", "ece_mass", "ece_l2", "ece_debiased", "mce", "pav_error",
    "brier_miscalibration", "confidence_gap",
)  # fmt: skip
"""Errors in which both predictors of `diffuse_preferred` are equally bad."""


def cells():
    """Name, world, size, whether calibrated, seed."""
    for i, world in enumerate([*(Classes(c) for c in CLASSES), Targets(), Counts()]):
        classes = world.task == "classification"
        name = f"{world.num_classes} classes" if classes else world.task
        for calibrated in (True, False):
            for m in SIZES:
                kind = "calibrated" if calibrated else "over-confident"
                yield f"{name}, {kind}, {m}", (world, m, calibrated), 2 * i + calibrated


def rare_cells():
    """Name, world, size, whether calibrated, seed."""
    worlds = {
        "2 classes": Classes(2, scale=8.0),
        "10 classes": Classes(10, scale=12.0),
        "counts": Counts(log_rate=-3.0),
    }
    for i, (name, world) in enumerate(worlds.items()):
        for calibrated in (True, False):
            kind = "calibrated" if calibrated else "over-confident"
            for m in RARE_SIZES:
                yield f"{name}, {kind}, {m}", (world, m, calibrated), 100 + 2 * i + calibrated


def main():
    """Simulate cell by cell, write JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-repetitions", type=int, default=300)
    add_out(parser)
    options = parser.parse_args()
    number = options.num_repetitions
    path = options.out / "standard_errors.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if found.get("num_repetitions") != number:
        found = {"num_repetitions": number, "num_resamples": NUM_RESAMPLES, "cells": {}}
    truths = {}
    # Small test sets of all kinds first; of finished ones only metrics that are new.
    for name, (world, m, calibrated), seed in sorted(cells(), key=lambda cell: cell[1][1]):
        done, start = found["cells"].setdefault(name, {}), time.perf_counter()
        if set(METRICS[world.task]) <= set(done):
            continue
        if seed not in truths:
            truths[seed] = population(world, calibrated)
        missing = {metric: v for metric, v in truths[seed].items() if metric not in done}
        done |= one_cell(world, missing, m, calibrated, number, seed)
        found["cells"][name] = {metric: done[metric] for metric in METRICS[world.task]}
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        write_results(options.out, "standard_errors", found | {"environment": environment()})
    rare = found.setdefault("rare", {})
    for name, (world, m, calibrated), seed in rare_cells():
        if name not in rare:
            truth = population(world, calibrated)
            truth = {metric: truth[metric] for metric in RARE_METRICS if metric in truth}
            rare[name] = one_cell(world, truth, m, calibrated, number, seed, student=True)
            print(f"rare, {name}", flush=True)
            write_results(options.out, "standard_errors", found | {"environment": environment()})
    for m in SIZES:
        name = f"detection, {m}"
        if name not in found["cells"]:
            found["cells"][name] = detection_cell(m, number, 77)
    known = {metric for cell in found["cells"].values() for metric in cell}
    for task in ("classification", "regression", "counts", "detection"):
        missing = set(METRICS[task]) - known
        assert not missing, f"not simulated: {missing}"
    found["diffuse_preferred"] = diffuse_preferred(number)
    write_results(options.out, "standard_errors", found | {"environment": environment()})


if __name__ == "__main__":
    main()
