"""Predictions to draw, and what can be read off a figure."""

import jax
import jax.numpy as jnp
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ntkbayes.evaluation import from_draws
from ntkbayes.likelihoods import Categorical, Gaussian

NAMES = ("NTK ensemble", "HMC", "my own")


def draw(data, center, seed, num_classes=10):
    key_draws, key_y = jax.random.split(jax.random.key(seed))
    latent = jnp.asarray(center)[None] + 0.3 * jax.random.normal(key_draws, (20, *center.shape))
    likelihood = Categorical(num_classes) if data.task == "classification" else Gaussian(0.5)
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


def written(figure):
    """All that a figure writes: text objects that are seen."""
    FigureCanvasAgg(figure).draw()
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in visible(figure):
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [tick.label1 for tick in ticks]
    return [text for text in found if text.get_visible() and text.get_text()]
