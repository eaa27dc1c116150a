"""Every notebook runs at reduced size and says what its text says; its outputs are kept."""

import ast
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MAX_LINES = 10
"""Of a function in a notebook; what is longer belongs into the package."""


@cache
def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def code_cells(path):
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


@pytest.fixture
def run(monkeypatch):
    """Name of a notebook → the variables that its cells leave behind, at reduced size."""
    monkeypatch.setenv("NTKBAYES_NOTEBOOK_SIZE", "small")

    def run_cells(name):
        (path,) = (path for path in NOTEBOOKS if path.stem == name)
        variables = {"__name__": "__main__"}
        for number, cell in enumerate(code_cells(path)):
            show(run_cell(source(cell), f"<{name}, code cell {number}>", variables))
        return variables

    return run_cells


def run_cell(code, name, variables):
    """Run a cell as a notebook does, and return the value of its last line if that has one."""
    statements = ast.parse(code).body
    last = statements.pop() if isinstance(statements[-1], ast.Expr) else None
    exec(compile(ast.Module(statements, []), name, "exec"), variables)
    return last and eval(compile(ast.Expression(last.value), name, "eval"), variables)


def show(value):
    """Render what a notebook would render: figures fail here or never."""
    for name in ("_repr_png_", "_repr_html_"):
        if hasattr(value, name):
            getattr(value, name)()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_hold_no_errors_warnings_or_paths(path):
    counts = [cell["execution_count"] for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run all cells, from the top"
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    texts = json.dumps(outputs)
    assert not [word for word in ("Warning", "/home/", "/tmp/", "/root/") if word in texts]
    assert path.stat().st_size < 1e6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_functions_are_short(path):
    nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(source(cell)))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.Lambda)]
    lengths = {ast.unparse(node)[:60]: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_answer_comes_first_and_a_comparison_last(path):
    texts = [source(cell) for cell in cells(path) if cell["cell_type"] == "markdown"]
    assert texts[0].startswith(f"# {int(path.stem[:2])} · ")
    assert texts[0].index("**Question.**") < texts[0].index("**Answer.**")
    headings = [line for text in texts for line in text.splitlines() if line.startswith("## ")]
    assert headings[-1].startswith("## For comparison: ")
    assert cells(path)[-1]["cell_type"] == "code", "the number itself comes last"


@pytest.mark.slow
def test_ordinary_ensembles_spread_too_little_far_from_the_moons(run):
    found = run("01_first_comparison")
    summary, num_draws = found["summary"], found["num_draws"]
    spread = summary["logit sd, far"]
    error = 1 / np.sqrt(2 * num_draws)  # relative, of the standard deviation of normal draws
    error = np.hypot(error, 0.01)  # the reduced grid's points are others
    for method, of_full_size in {"NTK ensemble": 1.341, "Laplace": 4.894, "HMC": 5.027}.items():
        assert abs(spread[method] / of_full_size - 1) < 5 * error
    table = found["table"].set_index(["metric", "method"]).loc["total_variation"]
    distance, floor = table["value"], table["monte_carlo_floor"]
    assert distance["Bayesian NTK ensemble"] < 2 * floor["Bayesian NTK ensemble"]
    assert abs(distance["Laplace"] - 0.0217) < 2 * floor["Laplace"]
    assert summary.loc["NTK ensemble", "total variation, far"] > 0.04
    assert found["peer_from_ours"] < 1.5 * floor["Laplace"]


@pytest.mark.slow
def test_the_start_and_the_noise_on_targets_mend_the_gap(run):
    found = run("02_regression_and_the_gap")
    gap, at_data = found["summary"]["sd in the gap"], found["summary"]["sd at the data"]
    kept = {name: found["summary"].loc[name] for name in found["summary"].index}
    np.testing.assert_allclose(
        gap[["NTK ensemble", "NTKGP start", "GP"]], [0.193, 0.608, 0.645], atol=1e-3
    )
    np.testing.assert_allclose(
        at_data[["NTK ensemble", "NTKGP start", "GP"]], [0.0021, 0.011, 0.055], rtol=0.05
    )
    assert kept["Bayesian NTK ensemble"]["largest difference from GP"] < 1e-9
    share, by_theory = found["share"], found["share_by_theory"]
    np.testing.assert_allclose(share["NTKGP start"], by_theory, rtol=1e-6)
    np.testing.assert_allclose(share[["Bayesian NTK ensemble", "GP"]], 1, rtol=1e-6)
    assert np.all(share["NTK ensemble"] < 0.05)
    by_decay = found["by_decay"]
    assert by_decay.loc["NTK ensemble"].is_monotonic_increasing
    assert by_decay.loc["GP"].is_monotonic_decreasing
    covered = found["table"].set_index(["metric", "method"])["value"]["coverage_95"]
    np.testing.assert_allclose(covered[["NTK ensemble", "GP"]], [0.805, 0.9])  # exact, not drawn
    assert max(found["largest"].values()) < 1e-9


@pytest.mark.slow
def test_the_margin_grows_like_log_t_and_members_bound_their_errors(run):
    found = run("03_classification_in_closed_form")
    assert abs(found["slope"] - 1) < 0.03  # between t = 1,000 and 100,000, not yet at infinity
    for name, limit in found["limits"].items():
        assert abs(found["smallest"][name].iloc[-1] - limit) < 1e-4
    certificates = found["certificates"]
    assert np.all(certificates["error"] < certificates["bound"])
    # Initial functions evaluated again at their own points are continued, to about 1e-7 of them.
    np.testing.assert_allclose(certificates["stats"], certificates["bound"], rtol=1e-2, atol=5e-6)
    assert certificates["products with K"].max() < 20
    np.testing.assert_allclose(found["at_training"], np.log(19), rtol=1e-8)
    assert max(found["z_size"].values()) < 3  # over points that are far from independent
    assert found["difference"] < 1e-5  # ten times the tolerance


@pytest.mark.slow
def test_kernels_change_like_one_over_width_and_only_where_weights_are_held(run):
    found = run("04_when_is_training_lazy")
    slope = found["slopes"]["slope"]
    for held in ("regularized", "smoothed_regularized"):
        assert -1.4 < slope["ntk_change", held] < -0.6  # three networks of three widths
        assert slope["ntk_change", held] < slope["flow_gap", held] < 0
    assert abs(slope["ntk_change", "decay_to_zero"]) < 0.01
    assert abs(found["widest"].loc["decay_to_zero", "ntk_change"] - 1) < 0.02
    before = found["compared"].loc["kernel before training"]
    assert before["lower"] < -0.5 < before["upper"]
    last = found["late"].query("time == time.max()").groupby(["measure", "condition"])["value"]
    last = last.mean()
    assert abs(last["logit_norm", "smoothed"] - np.log(19) / 2) < 0.15  # at rest, not yet exactly
    assert last["logit_norm", "unregularized"] > 3
    assert last["ntk_change", "unregularized"] > 2 * last["ntk_change", "smoothed"] > 2
    distance = found["distances"]
    z = distance["value"] / distance["standard_error"]
    assert z[8, "energy_distance"] > 3
    assert abs(z[64, "energy_distance"]) < 3


@pytest.mark.slow
def test_the_best_calibrated_digits_are_the_worst_when_turned(run):
    found = run("05_calibration_benchmark")
    for kept in (found["by_severity"]("ece"), found["by_severity"]("nll")):
        assert kept[0].idxmin() == kept[5].idxmax() == "Mode + temperature"
        assert kept[0].idxmax() == "Laplace"
        assert np.all(kept.loc["HMC", 0] > kept.loc[["Mode", "NTK ensemble", "Deep ensemble"], 0])
        assert kept.loc["HMC", 5] < kept.loc["Mode", 5]
        bayesian = kept.loc["Bayesian NTK ensemble"] - kept.loc["HMC"]
        assert np.all(abs(bayesian) < 0.15)  # a few draws of each, and short chains
    assert found["temperature"] < 1
    scores = found["auroc"]["value"].unstack()
    assert np.all(scores["predictive_entropy"] > scores["mutual_information"])
    assert abs(scores.loc["Mode", "mutual_information"] - 0.5) < 1e-9  # it has one member
    assert max(found["largest"].values()) < 1e-9


@pytest.mark.slow
def test_two_frameworks_have_one_kernel_and_two_samplers_one_posterior(run):
    found = run("06_bring_your_own")
    assert max(found["difference"].values()) < 1e-12
    distance, floor = found["nuts"]
    assert distance < 4 * floor  # of independent draws; short chains' are not
    assert found["mode"].converged
    assert found["networks"]["Equinox"].num_parameters == 82
    away = found["distances"]["value"]
    assert np.all(away[["Linearised ensemble", "Laplace", "random forest"]] > 4 * distance)
    score = found["table"].set_index(["metric", "method"])["value"]["nll"]
    assert score["HMC"] < score["Laplace"] < score["Linearised ensemble"]


@pytest.mark.slow
def test_the_order_of_methods_is_the_same_for_every_architecture(run):
    found = run("07_convolution_and_residual")
    value = found["tables"]["value"].unstack("method")
    distance, spread = value.loc["total_variation"], value.loc["mutual_information"]
    assert np.all(distance["Bayesian NTK ensemble"] < distance["NTK ensemble"])
    assert np.all(distance["NTK ensemble"] < distance["Laplace"])
    assert np.all(spread["NTK ensemble"] < 0.3 * spread["HMC"])
    assert np.all(abs(spread["Bayesian NTK ensemble"] / spread["HMC"] - 1) < 0.25)
    ratio = found["ratio"].T["initial variance / prior variance"]
    assert ratio["dense"] < ratio["convolution, residual"] < 0.3
    assert max(map(float, found["differences"].values())) < 1e-6  # kernels of coinciding points
