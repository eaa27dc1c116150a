"""The README's example prints what the README says, and its tables are those of the results."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NUMBER = re.compile(r"\d+\.\d+")


@pytest.mark.parametrize("document", ["README.md", "benchmarks/README.md"])
def test_tables_are_made_from_the_results(document):
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = (ROOT / document).read_text(encoding="utf-8")
    assert "<!-- table " in text
    assert tables.with_tables(text) == text, "run benchmarks/tables.py"


@pytest.mark.slow
def test_the_example_prints_what_the_readme_says(capsys):
    example, printed = code_blocks_of_the_example()
    exec(compile(example, str(README), "exec"), {})
    found = capsys.readouterr().out
    assert NUMBER.sub("#", found).split() == NUMBER.sub("#", printed).split()
    values, errors = numbers(found).T
    expected_values, expected_errors = numbers(printed).T
    # Draws are the same on one platform only; elsewhere the values move by their Monte-Carlo error,
    # 0.0005 from one set of draws to another when this was written.
    np.testing.assert_array_less(np.abs(values - expected_values), 5 * 0.0005)
    np.testing.assert_allclose(errors, expected_errors, rtol=0, atol=1e-4)  # the last digit printed


def code_blocks_of_the_example():
    """The Python block of the section "In Python", and the block of its output."""
    section = README.read_text(encoding="utf-8").split("\n## In Python\n")[1].split("\n## ")[0]
    return re.fullmatch(
        r"\s*```python\n(.*?)```\s*```\n(.*?)```.*", section, flags=re.DOTALL
    ).groups()


def numbers(printed):
    """Value and standard error of every row."""
    return np.array(NUMBER.findall(printed), dtype=float).reshape(-1, 2)
