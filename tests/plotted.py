"""Predictions to draw, and what can be read off a figure."""

import jax
import jax.numpy as jnp

from ntkbayes.evaluation import from_draws
from ntkbayes.likelihoods import Categorical, Gaussian

NAMES = ("NTK ensemble", "HMC", "my own")


def draw(data, center, seed):
    key_draws, key_y = jax.random.split(jax.random.key(seed))
    latent = jnp.asarray(center)[None] + 0.3 * jax.random.normal(key_draws, (20, *center.shape))
    likelihood = Categorical(10) if data.task == "classification" else Gaussian(0.5)
    return from_draws(
        latent,
        likelihood,
        data.y_test,
        key=key_y,
        method="unnamed",
        dataset=data.name,
        output_names=data.class_names or data.target_names,
    )


def texts(axes):
    return [text.get_text() for text in axes.texts]


def visible(figure):
    return [axes for axes in figure.axes if axes.get_visible()]
