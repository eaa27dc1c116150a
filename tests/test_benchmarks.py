"""What benchmarks measure."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

COMMON = Path(__file__).parents[1] / "benchmarks" / "common.py"


def test_memory_is_what_a_call_holds_at_its_peak_also_when_it_was_called_before():
    spec = importlib.util.spec_from_file_location("common", COMMON)
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    many = jax.jit(lambda start: [jnp.full(200_000, start + i) for i in range(50)])  # 80 MB
    found = [common.measured(lambda: many(1.0), warm_up=warm_up) for warm_up in (False, True, True)]
    if found[0].gigabytes is None:
        pytest.skip("this system does not say how much memory a process holds")
    for each in found[1:]:
        assert each.gigabytes == pytest.approx(0.08, rel=0.2)
        assert each.seconds > 0
