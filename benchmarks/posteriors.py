"""Posteriors of the wide network against scikit-learn and BlackJAX, in one process.

- Laplace on digits, ten classes coupled by the full softmax block, against scikit-learn's
  one-vs-rest `GaussianProcessClassifier`, which couples nothing, on the same kernel: time to fit,
  and log loss of the predictive probabilities at test points.
- Hamiltonian Monte Carlo on the function-space density of digits: ours (NumPyro's, trajectories of
  given mean length) against BlackJAX' No-U-Turn sampler with its window adaptation, on the same
  density in the same coordinates: smallest and median bulk ESS of the predictive probabilities per
  second, adaptation included. All chains are vectorised on one device, or ours shared over several.

Compilation is excluded everywhere: every time is that of a second call.

    python benchmarks/posteriors.py --num-train 1000 --num-chain-train 300
"""

import argparse
from functools import partial

import arviz as az
import jax
import numpy as np
from common import PrecomputedKernel, add_out, digits, measured, write_results
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.metrics import log_loss

import ntkbayes as nb
from ntkbayes._problem import training_set
from ntkbayes._types import silent
from ntkbayes.experiment.environment import environment
from ntkbayes.posteriors.chains import MAX_TREE_DEPTH, TARGET_ACCEPT, Chains, run_chains
from ntkbayes.posteriors.function_space import sample_functions

PRIOR_PRECISION = 0.1
NUM_TEST, NUM_DRAWS, NUM_CHAINS = 300, 1000, 4


def laplace(num_train):
    """Time and memory to fit, and log loss, of both."""
    x, y = digits(num_train + NUM_TEST)
    x_train, y_train, x_test, y_test = x[:num_train], y[:num_train], x[num_train:], y[num_train:]
    network = nb.dense_network()

    def fit():
        model = (network, nb.Categorical(10), x_train, y_train)
        posterior = nb.laplace(*model, prior_precision=PRIOR_PRECISION)
        return posterior, posterior.log_marginal_likelihood

    (posterior, _), seconds, gigabytes = measured(fit)
    draws = posterior.sample(jax.random.key(0), x_test, num_draws=NUM_DRAWS)
    ours = np.asarray(jax.nn.softmax(draws).mean(axis=0))
    peer = GaussianProcessClassifier(
        PrecomputedKernel(network, PRIOR_PRECISION), optimizer=None, multi_class="one_vs_rest"
    )
    _, peer_seconds, peer_gigabytes = measured(lambda: peer.fit(x_train, y_train), warm_up=False)
    return {
        "num_train": num_train,
        "seconds": seconds,
        "scikit_learn_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "gigabytes": gigabytes,
        "scikit_learn_gigabytes": peer_gigabytes,
        "log_loss": log_loss(y_test, ours, labels=range(10)),
        "scikit_learn_log_loss": log_loss(y_test, peer.predict_proba(x_test), labels=range(10)),
    }


def chains(num_train, num_warmup, num_draws):
    """Effective draws of predictive probabilities per second, of both samplers."""
    x, y = digits(num_train + NUM_TEST)
    likelihood, key = nb.Categorical(10), jax.random.key(0)
    train = training_set(likelihood, x[:num_train], y[:num_train])
    runs = {
        "ntkbayes": partial(
            run_chains, key=key, num_warmup=num_warmup, num_draws=num_draws,
            num_chains=NUM_CHAINS, checkpoint=None, progress=silent,
        ),
        "blackjax": partial(
            run_blackjax, key=key, num_warmup=num_warmup, num_draws=num_draws
        ),
    }  # fmt: skip
    found = {
        "num_train": num_train, "num_latent": num_train * 10, "num_chains": NUM_CHAINS,
        "num_warmup": num_warmup, "num_draws": num_draws, "num_devices": len(jax.devices()),
    }  # fmt: skip
    for name, run in runs.items():
        cost = []

        def observed(target, run=run, cost=cost):
            found = measured(lambda: run(target))
            cost.append(found)
            return found.result

        posterior = sample_functions(
            nb.dense_network(), likelihood, train,
            prior_precision=PRIOR_PRECISION, kernel="ntk", product_dtype=None, run=observed,
        )  # fmt: skip
        seconds = cost[0].seconds
        total = NUM_CHAINS * num_draws
        latent = posterior.sample(jax.random.key(1), x[num_train:], num_draws=total)
        p = np.asarray(jax.nn.softmax(latent)).reshape(NUM_CHAINS, num_draws, -1)
        ess = np.asarray(az.ess(p, chain_axis=0, draw_axis=1))
        found[name] = {
            "seconds": seconds,
            "gigabytes": cost[0].gigabytes,
            "min_ess": float(ess.min()),
            "median_ess": float(np.median(ess)),
            "max_rhat": float(np.max(az.rhat(p, chain_axis=0, draw_axis=1))),
            "min_ess_per_second": float(ess.min() / seconds),
            "median_ess_per_second": float(np.median(ess) / seconds),
            "leapfrog_steps_per_draw": float(np.mean(posterior.chains.stats["num_steps"])),
        }
    for which in ("min", "median"):
        ratio = (
            found["ntkbayes"][f"{which}_ess_per_second"]
            / found["blackjax"][f"{which}_ess_per_second"]
        )
        found[f"ratio_{which}"] = ratio
    return found


def run_blackjax(target, *, key, num_warmup, num_draws):
    """Adapt and sample BlackJAX' NUTS on a target's density, chains vectorised."""
    keys = jax.random.split(key, NUM_CHAINS)
    position, num_steps, diverging = _blackjax_chains(target, keys, num_warmup, num_draws)
    flat = position.reshape(-1, *position.shape[2:])
    stats = {"num_steps": num_steps.ravel(), "diverging": diverging.ravel()}
    return Chains(flat, stats, NUM_CHAINS, num_warmup)


@partial(jax.jit, static_argnames=("num_warmup", "num_draws"))
def _blackjax_chains(target, keys, num_warmup, num_draws):
    import blackjax  # starts JAX's devices, whose number must be set before

    def logdensity(position):
        return -target.potential(position)

    def one_chain(key):
        key_start, key_chain = jax.random.split(key)
        key_warmup, key_draws = jax.random.split(key_chain)
        warmup = blackjax.window_adaptation(
            blackjax.nuts, logdensity, target_acceptance_rate=TARGET_ACCEPT,
            max_num_doublings=MAX_TREE_DEPTH,
        )  # fmt: skip
        adapted, _ = warmup.run(key_warmup, target.start(key_start), num_steps=num_warmup)
        sampler = blackjax.nuts(logdensity, **adapted.parameters)

        def step(state, key):
            state, info = sampler.step(key, state)
            return state, (state.position, info.num_integration_steps, info.is_divergent)

        _, visited = jax.lax.scan(step, adapted.state, jax.random.split(key_draws, num_draws))
        return visited

    return jax.vmap(one_chain)(keys)


def main():
    """Run, print, write JSON."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--num-chain-train", type=int, default=300)
    parser.add_argument("--num-warmup", type=int, default=200)
    parser.add_argument("--num-draws", type=int, default=250)
    parser.add_argument("--num-devices", type=int, default=1, help="for our chains to share")
    add_out(parser)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.num_devices)
    result = {"laplace": laplace(options.num_train)}
    print(result["laplace"], flush=True)
    result["chains"] = chains(options.num_chain_train, options.num_warmup, options.num_draws)
    print(result["chains"], flush=True)
    write_results(options.out, "posteriors", result | {"environment": environment()})


if __name__ == "__main__":
    main()
