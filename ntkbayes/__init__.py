"""Is the spread of wide networks over initialisations a usable uncertainty? NTK against Bayes.

Data flows one way:

    data → network and likelihood → method → predictor → predictions → evaluation → report

- ``datasets``     `load_dataset`, `make_dataset`, the `Dataset` record; `shift`, `hold_out_classes`
- ``networks``     `dense_network`, `stax_network`: kernels at infinite, functions at finite width;
                   `finite_network`: any other; `empirical_ntk`, `linearize`
- ``likelihoods``  `Gaussian`, `Categorical`, `Bernoulli`, `Poisson`
- ``ensembles``    `ntk_ensemble` (closed form), `linearized_ensemble` (finite networks in their
                   tangent spaces), `deep_ensemble` (really trained)
- ``posteriors``   `laplace`, `gp_posterior`, `hmc`; of finite networks `hmc` over weights, and
                   `linearized_laplace` at what `map_estimate` trained
- ``hyperparameters``
                   `select_hyperparameters`: by log marginal likelihood or validation data
- ``temperature``  `temperature_scaled`: any classifier's draws, calibrated on validation data
- ``evaluation``   `predict` → ArviZ DataTree → `compare`, plots, report
- ``methods``      the methods by name: `METHODS`
- ``experiment``   `run_comparison`: all methods on one data set, resumable; ``cli`` calls it

Losses are sums over data, so ``prior_precision`` means the same in training and in Bayes.
Importing this package changes no JAX setting; enable float64 yourself where you want it. The public
names are listed in ``__init__.pyi``; each is imported when it is first used.

Examples
--------
The examples of all functions begin with this; those of `ntkbayes.evaluation` and `ntkbayes.lazy`
go on from it in the docstring there:

>>> import jax
>>> import numpy as np
>>> import ntkbayes as nb
>>> jax.config.update("jax_enable_x64", True)
>>> key = jax.random.key(0)
>>> data = nb.load_dataset("moons", num_train=20)
>>> network = nb.dense_network(depth=1, width=16)
>>> model = (network, nb.Categorical(data.num_classes), data.x_train, data.y_train)
>>> sine = nb.load_dataset("sine", num_train=12)
>>> smooth = nb.dense_network(depth=1, width=16, activation="erf", bias_scale=1.0)
>>> model_sine = (smooth, nb.Gaussian(0.05), sine.x_train, sine.y_train)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
