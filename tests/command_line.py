"""Calling the command line in a test."""

import pytest
from typer.testing import CliRunner

from ntkbayes import cli

QUICK = ("laplace", "mode", "ntk-ensemble")
IRIS = ["compare", "iris", "--methods", ",".join(QUICK), "--num-draws", "50"]


@pytest.fixture(autouse=True)
def jax_has_started(monkeypatch):
    """Keep precision, which is set for all tests, and the number of devices, which is fixed."""
    monkeypatch.setattr(cli, "_start_jax", lambda: None)


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def assert_refused(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr
