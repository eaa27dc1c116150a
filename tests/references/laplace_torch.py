"""Write laplace_torch.json: what laplace-torch gives for small trained networks.

    python tests/references/laplace_torch.py

needs ``torch``, ``laplace-torch`` and its curvature backend ``curvlinops-for-pytorch``. The numbers
in the repository are compared with ours by tests/test_linearized_laplace.py.
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch
from laplace import Laplace

PRIOR_PRECISION, NOISE_VARIANCE = 0.3, 0.05
CASES = [
    *[("all", "full"), ("all", "diag"), ("all", "kron")],
    *[("last_layer", "full"), ("last_layer", "diag"), ("last_layer", "kron")],
]


def data(task):
    """Two features, 30 training and 5 test points, made of numbers that any library can read."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(35, 2))
    y = np.argmax(x @ rng.normal(size=(2, 3)) + 0.3 * rng.normal(size=(35, 3)), axis=1)
    values = np.stack([np.sin(2 * x[:, 0]), x[:, 0] * x[:, 1]], axis=1)
    return x, (y if task == "classification" else values)


def trained(x, y, task):
    """Minimise the summed loss and the regulariser towards zero."""
    torch.manual_seed(0)
    outputs = 3 if task == "classification" else 2
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6), torch.nn.Tanh(),
        torch.nn.Linear(6, outputs),
    ).double()  # fmt: skip
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=3000, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def objective():
        optimizer.zero_grad()
        f = model(x)
        if task == "classification":
            loss = torch.nn.functional.cross_entropy(f, y, reduction="sum")
        else:
            loss = 0.5 * torch.sum((f - y) ** 2) / NOISE_VARIANCE
        squares = sum(torch.sum(p**2) for p in model.parameters())
        value = loss + 0.5 * PRIOR_PRECISION * squares
        value.backward()
        return value

    optimizer.step(objective)
    return model


def posterior(model, x, y, x_test, task, subset, structure):
    """Mean, covariance and log marginal likelihood, and the probit's class probabilities."""
    noise = {"sigma_noise": NOISE_VARIANCE**0.5} if task == "regression" else {}
    laplace = Laplace(
        model, task, subset_of_weights=subset, hessian_structure=structure,
        prior_precision=PRIOR_PRECISION, **noise,
    )  # fmt: skip
    dataset = torch.utils.data.TensorDataset(x, y)
    laplace.fit(torch.utils.data.DataLoader(dataset, batch_size=len(x)))
    mean, covariance = laplace._glm_predictive_distribution(x_test)
    found = {
        "log_marginal_likelihood": float(laplace.log_marginal_likelihood()),
        "mean": mean.tolist(),
        "covariance": covariance.tolist(),
    }
    if task == "classification":
        found["probit"] = laplace(x_test, link_approx="probit").tolist()
    return found


def main():
    """Write the file."""
    packages = ("torch", "laplace-torch", "curvlinops-for-pytorch")
    result = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "prior_precision": PRIOR_PRECISION,
        "noise_variance": NOISE_VARIANCE,
    }
    for task in ("classification", "regression"):
        inputs, targets = data(task)
        x, y = torch.tensor(inputs), torch.tensor(targets)
        model = trained(x[:30], y[:30], task)
        result[task] = {
            "x": inputs.tolist(),
            "y": targets.tolist(),
            "params": [p.detach().tolist() for p in model.parameters()],
            "posteriors": {
                f"{subset} {structure}": posterior(
                    model, x[:30], y[:30], x[30:], task, subset, structure
                )
                for subset, structure in CASES
            },
        }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
