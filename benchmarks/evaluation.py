"""Time and memory of all metrics of a large classification.

Latent draws of one method (draws × points × classes) become predictions, and `compare` computes
every metric with its bootstrap standard error over 1,000 resamples of the test points. Beside it,
what another way costs: scikit-learn's Brier score and log loss, resample by resample, for a few
resamples, from the mean probabilities alone.

    python benchmarks/evaluation.py --num-draws 1000 --num-points 10000 --num-classes 10
"""

import argparse
import time

import jax
import numpy as np
from common import add_out, measured, write_results
from sklearn.metrics import brier_score_loss, log_loss

import ntkbayes as nb
from ntkbayes.evaluation import compare, from_draws, observations, probabilities
from ntkbayes.evaluation.metrics import bootstrap_weights
from ntkbayes.experiment.environment import environment

NUM_RESAMPLES = 1000
PEER_RESAMPLES = 10


def predictions(num_draws, num_points, num_classes, dtype):
    """Draws around logits that favour the label, as a method that is right in 85 % has them."""
    generator = np.random.default_rng(0)
    labels = generator.integers(num_classes, size=num_points)
    latent = generator.standard_normal((num_draws, num_points, num_classes), dtype=dtype)
    latent += (3 * np.eye(num_classes, dtype=dtype)[labels])[None]
    latent += generator.standard_normal((num_points, num_classes), dtype=dtype)
    return from_draws(
        latent, nb.Categorical(num_classes), labels, key=jax.random.key(0), method="large"
    )


def peer(tree, names):
    """Seconds per resample of scikit-learn's Brier score and log loss, and their values."""
    p, y = probabilities(tree).mean(axis=0), observations(tree)
    weights = bootstrap_weights(len(y))[:PEER_RESAMPLES]
    classes = np.arange(p.shape[1])
    start = time.perf_counter()
    for w in weights:
        log_loss(y, p, sample_weight=w, labels=classes)
        brier_score_loss(y, p, sample_weight=w, labels=classes)
    seconds = (time.perf_counter() - start) / PEER_RESAMPLES
    values = {
        "nll": log_loss(y, p, labels=classes),
        "brier": brier_score_loss(y, p, labels=classes),
    }
    return seconds, {name: values[name] for name in names}


def main():
    """Run, print, write JSON."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-draws", type=int, default=1000)
    parser.add_argument("--num-points", type=int, default=10_000)
    parser.add_argument("--num-classes", type=int, default=10)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    add_out(parser)
    options = parser.parse_args()
    size = (options.num_draws, options.num_points, options.num_classes, options.dtype)
    making = measured(lambda: predictions(*size), warm_up=False)
    tree = making.result
    table, seconds, gigabytes = measured(
        lambda: compare({"large": tree}, reference=None), warm_up=False
    )
    values = table.set_index("metric")["value"]
    peer_seconds, expected = peer(tree, ("nll", "brier"))
    result = {
        "num_draws": options.num_draws,
        "num_points": options.num_points,
        "num_classes": options.num_classes,
        "dtype": options.dtype,
        "num_metrics": len(table),
        "num_resamples": NUM_RESAMPLES,
        "seconds_to_make_predictions": making.seconds,
        "gigabytes_to_make_predictions": making.gigabytes,
        "gigabytes_of_predictions": tree.nbytes / 1e9,
        "seconds": seconds,
        "gigabytes": gigabytes,
        "scikit_learn_seconds_for_two_metrics": NUM_RESAMPLES * peer_seconds,
        "largest_difference_from_scikit_learn": max(
            abs(values[name] - value) for name, value in expected.items()
        ),
    }
    print(result, flush=True)
    write_results(options.out, "evaluation", result | {"environment": environment()})


if __name__ == "__main__":
    main()
