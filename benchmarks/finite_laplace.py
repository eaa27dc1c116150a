"""Laplace of a finite network against laplace-torch: same weights, same data, one process.

Digits, a tanh network 64-40-10, trained once by `map_estimate`. Both compute the full generalised
Gauss–Newton matrix of all weights (p = 3,010) and its factorisation, the log marginal likelihood,
and probit probabilities at test points. Needs ``torch``, ``laplace-torch`` and
``curvlinops-for-pytorch``.

    python benchmarks/finite_laplace.py --num-train 1000
"""

import argparse
import importlib.metadata
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import torch
from common import add_out, digits, measured, write_results
from laplace import Laplace

import ntkbayes as nb

PRIOR_PRECISION, NUM_TEST, WIDTH = 1.0, 300, 40


def network():
    """PyTorch's Linear layers with tanh between them."""

    def init(key):
        keys = jax.random.split(key, 2)
        shapes = ((WIDTH, 64), (10, WIDTH))
        weights = [jax.random.normal(k, s) / s[1] ** 0.5 for k, s in zip(keys, shapes, strict=True)]
        return [(weight, jnp.zeros(len(weight))) for weight in weights]

    def apply(params, x):
        (first, bias), (last, shift) = params
        return jnp.tanh(x @ first.T + bias[None]) @ last.T + shift[None]

    return nb.finite_network(init, apply)


def torch_copy(params):
    """Copy the network to PyTorch."""
    model = torch.nn.Sequential(
        torch.nn.Linear(64, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 10)
    ).double()
    with torch.no_grad():
        for layer, (weight, bias) in zip((model[0], model[2]), params, strict=True):
            layer.weight.copy_(torch.tensor(np.array(weight)))
            layer.bias.copy_(torch.tensor(np.array(bias)))
    return model


def main():
    """Run, print, write JSON."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-train", type=int, default=1000)
    add_out(parser)
    options = parser.parse_args()
    x, y = digits(options.num_train + NUM_TEST)
    x_train, y_train, x_test = x[:-NUM_TEST], y[:-NUM_TEST], x[-NUM_TEST:]
    net = network()
    model = (net, nb.Categorical(10), x_train, y_train)
    found = nb.map_estimate(*model, prior_precision=PRIOR_PRECISION, key=jax.random.key(0))
    print("residual of the training", float(found.residual), "steps", found.num_steps, flush=True)

    def ours():
        posterior = nb.linearized_laplace(
            *model, prior_precision=PRIOR_PRECISION, params=found.params, form="weight"
        )
        return posterior.log_marginal_likelihood, nb.probit_probabilities(posterior, x_test)

    (evidence, probabilities), seconds, gigabytes = measured(ours)
    peer = torch_copy(found.params)
    dataset = torch.utils.data.TensorDataset(torch.tensor(x_train), torch.tensor(y_train))
    loader = torch.utils.data.DataLoader(dataset, batch_size=len(x_train))

    def theirs():
        posterior = Laplace(
            peer, "classification", subset_of_weights="all", hessian_structure="full",
            prior_precision=PRIOR_PRECISION,
        )  # fmt: skip
        posterior.fit(loader)
        return (
            float(posterior.log_marginal_likelihood()),
            posterior(torch.tensor(x_test), link_approx="probit").detach().numpy(),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = [measured(theirs, warm_up=False) for _ in range(2)]
    best = min(runs, key=lambda run: run.seconds)
    peer_evidence, peer_probabilities = best.result
    packages = ("jax", "torch", "laplace-torch", "curvlinops-for-pytorch")
    result = {
        "num_train": options.num_train,
        "num_parameters": net.num_parameters,
        "seconds": seconds,
        "laplace_torch_seconds": best.seconds,
        "ratio": best.seconds / seconds,
        "gigabytes": gigabytes,
        "laplace_torch_gigabytes": best.gigabytes,
        "log_marginal_likelihood": float(evidence),
        "laplace_torch_log_marginal_likelihood": peer_evidence,
        "largest_difference_of_probabilities": float(
            np.abs(np.asarray(probabilities) - peer_probabilities).max()
        ),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    write_results(options.out, "finite_laplace", result)


if __name__ == "__main__":
    main()
