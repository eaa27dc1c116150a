"""neural-tangents' ``stax`` and ``predict``, importable on current JAX.

``import neural_tangents`` fails on JAX ≥ 0.6 because of one removed private name in a module that
is not needed here. This package looks its submodules up in the installed distribution's folder
without running the distribution's own ``__init__``::

    from ntkbayes.networks.neural_tangents import predict, stax

Nothing of JAX is patched, and ``sys.modules["neural_tangents"]`` is left alone.
"""

import importlib.util

_spec = importlib.util.find_spec("neural_tangents")
if _spec is None or _spec.submodule_search_locations is None:
    raise ImportError("neural-tangents is not installed: install ntkbayes with its extra 'stax'.")
__path__ = list(_spec.submodule_search_locations)
