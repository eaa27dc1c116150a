"""Draws of chains whose correlation is known, as predictions."""

import numpy as np
import xarray as xr


def predictions(latent, num_chains, task="classification", **stats):
    """A tree with latent draws (s m c) only, as much as the diagnostics read."""
    dims = ("chain", "draw", "obs_id", "output")
    chained = latent.reshape(num_chains, -1, *latent.shape[1:])
    attrs = {"task": task, "num_chains": num_chains, "method": "HMC", "dataset": "none"}
    per_draw = {k: (dims[:2], v.reshape(num_chains, -1)) for k, v in stats.items()}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs),
            "posterior": xr.Dataset({"latent": (dims, chained)}),
            "sample_stats": xr.Dataset(per_draw),
        }
    )


def correlated(generator, correlation, num_chains=4, num_draws=400, shape=(6, 2)):
    """Autoregressive chains (s m c) with stationary variance 1."""
    z = generator.normal(size=(num_chains, num_draws, *shape))
    for t in range(1, num_draws):
        z[:, t] = correlation * z[:, t - 1] + np.sqrt(1 - correlation**2) * z[:, t]
    return z.reshape(-1, *shape)
