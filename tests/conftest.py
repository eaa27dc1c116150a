"""Settings of every test: double precision, no accidental broadcasting, no windows, no optimiser.

Problems are tiny, so compiling takes most of the time: without LLVM's optimisations and XLA's
emitters of fused loops it takes a fifth of it, and results differ by rounding only.
"""

import os
from importlib.metadata import version

os.environ["XLA_FLAGS"] = " ".join(
    [
        *os.environ.get("XLA_FLAGS", "").split(),
        "--xla_backend_optimization_level=0",
        *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib") < "0.11" else []),
    ]  # of which later versions know nothing, and end at once
)

import jax
import matplotlib as mpl
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
mpl.use("Agg")


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_functions():
    """Compiled functions take memory mappings, of which a process may have some ten thousand."""
    yield
    jax.clear_caches()
