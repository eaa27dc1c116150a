"""neural-tangents' ``stax`` and ``predict``, importable on current JAX.

``import neural_tangents`` fails on JAX ≥ 0.6 because of one removed private name in a module that
is not needed here. This package looks its submodules up in the installed distribution's folder
without running the distribution's own ``__init__``::

    from ntkbayes.networks.neural_tangents import predict, stax

What works on the versions of JAX that this package allows (each entry is called by the tests):

- ``stax``: Dense, Conv, ConvLocal, ConvTranspose, AvgPool, SumPool, GlobalAvgPool, GlobalSumPool,
  Flatten, LayerNorm, FanOut, FanInSum, FanInConcat, parallel, Dropout (``mode="test"``),
  GlobalSelfAttention with ``linear_scaling=True``; the activations Relu, ABRelu, LeakyRelu, Abs,
  Erf, Gelu, Sigmoid_like, Sin, Cos, Rbf, Gaussian, Exp, ExpNormalized, Sign, Monomial, Polynomial,
  Hermite, ElementwiseNumerical;
- ``predict``: gradient_descent, gradient_descent_mse, gradient_descent_mse_ensemble, gp_inference.

What does not: ``stax.RectifiedMonomial`` (NaN), ``predict.max_learning_rate`` (an argument that
SciPy and JAX no longer have), ``predict.gradient_descent_mse`` of a traced kernel, as within
``vmap`` over kernels, and whatever needs the ``empirical`` or ``monte_carlo`` modules
(`ntkbayes.empirical_ntk` is there instead).

Nothing of JAX is patched, and ``sys.modules["neural_tangents"]`` is left alone.
"""

import importlib.util

_spec = importlib.util.find_spec("neural_tangents")
if _spec is None or _spec.submodule_search_locations is None:
    raise ImportError(
        "neural-tangents is not installed: pip install --no-deps neural-tangents && pip install "
        "frozendict (the extra 'stax' brings TensorFlow, too, which is not needed)."
    )
__path__ = list(_spec.submodule_search_locations)
