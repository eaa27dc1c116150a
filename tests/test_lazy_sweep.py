"""Sweeps: the claims about width and time, slopes, files, refusals, figures, the command."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import ntkbayes as nb
from ntkbayes import cli
from ntkbayes.lazy import (
    CONDITIONS,
    MEASURES,
    fit_slopes,
    plot_against_time,
    plot_against_width,
    plot_layers,
    study as lazy_study,
    sweep as sweep_module,
)
from ntkbayes.lazy.sweep import COLUMNS

DATA = nb.load_dataset("moons", num_train=16)
SMALL = {"widths": (16, 32), "num_seeds": 2, "time": 1.0, "num_records": 3}
TWO = {name: CONDITIONS[name] for name in ("regularized", "unregularized")}
NETWORK = nb.dense_network(depth=1, activation="erf")


def run(network=NETWORK, conditions=TWO, **settings):
    settings = {"key": jax.random.key(0)} | SMALL | settings
    return nb.lazy.width_sweep(
        network, DATA.x_train, DATA.y_train, DATA.x_test[:30], conditions=conditions, **settings
    )


@pytest.fixture(scope="module")
def claims():
    """One hidden layer of erf units, all conditions, until time 20."""
    return run(conditions=CONDITIONS, widths=(32, 96, 288), num_seeds=6, time=20.0, num_records=8)


@pytest.fixture(scope="module")
def slopes(claims):
    """At time 3.6, when what is regularised has come to rest."""
    early = claims.table[claims.table["time"] < 5]
    return fit_slopes(early).set_index(["condition", "measure", "layer"])


def values(sweep, condition, measure, width, *, rank=-1):
    """Of all seeds at one record."""
    table = sweep.table
    part = table[
        (table["condition"] == condition)
        & (table["measure"] == measure)
        & (table["width"] == width)
        & (table["layer"] == "all")
    ]
    return (
        part[part["time"] == sorted(part["time"].unique())[rank]]
        .sort_values("seed")["value"]
        .to_numpy()
    )


LAZY = ("regularized", "smoothed", "smoothed_regularized", "squared_error")


@pytest.mark.parametrize("condition", LAZY)
@pytest.mark.slow
def test_distance_to_infinite_width_falls_like_one_over_the_root_of_width(slopes, condition):
    # Small eigenvalues of the NTK delay the end under smoothed targets: it is far at all widths.
    for gap in ("flow_gap",) if condition == "smoothed" else ("flow_gap", "end_gap"):
        row = slopes.loc[condition, gap, "all"]
        assert row["lower"] < -0.5 < row["upper"]
        assert row["upper"] < 0


@pytest.mark.parametrize("condition", LAZY)
@pytest.mark.parametrize("measure", ["ntk_change", "linearization_gap"])
@pytest.mark.slow
def test_networks_become_linear_at_least_that_fast(slopes, condition, measure):
    """−½ is the bound; networks are found at it or below."""
    row = slopes.loc[condition, measure, "all"]
    assert row["lower"] < -0.5
    assert row["upper"] < -0.3


@pytest.mark.slow
def test_decay_to_zero_changes_the_kernel_as_much_at_every_width(slopes, claims):
    row = slopes.loc["decay_to_zero", "ntk_change", "all"]
    assert abs(row["slope"]) < 0.1
    assert values(claims, "decay_to_zero", "ntk_change", 288).min() > 0.5
    assert values(claims, "regularized", "ntk_change", 288).max() < 0.1


@pytest.mark.parametrize("width", [32, 96, 288])
@pytest.mark.slow
def test_only_without_regularisation_drift_and_logits_keep_growing(claims, width):
    """Between the last two records, times 8.5 and 20."""
    for measure in ("ntk_change", "logit_norm"):
        late, last = (values(claims, "unregularized", measure, width, rank=r) for r in (-2, -1))
        growth = np.log(last / late)
        error = growth.std(ddof=1) / np.sqrt(len(growth))
        assert growth.mean() - 2.57 * error > 0.1  # t quantile at five degrees of freedom
        late, last = (values(claims, "regularized", measure, width, rank=r) for r in (-2, -1))
        assert abs(np.log(last / late)).max() < 0.05


@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != "decay_to_zero"])
@pytest.mark.slow
def test_wide_networks_follow_linearisation_and_flow_all_along(claims, condition):
    """Not at the end only: at every record, and nearer the wider they are."""
    for rank in range(3, len(sorted(claims.table.query("condition == @condition").time.unique()))):
        for measure, largest in (("linearization_gap", 0.2), ("flow_gap", 0.25)):
            narrow, wide = (values(claims, condition, measure, w, rank=rank) for w in (32, 288))
            assert wide.mean() < largest
            assert wide.mean() < 0.7 * narrow.mean()


def test_intervals_of_slopes_cover_the_true_one_as_often_as_they_say():
    generator, hits, trials = np.random.default_rng(0), 0, 400
    widths = np.repeat([32, 128, 512], 4)
    columns = {"condition": "a", "width": widths, "seed": np.tile(range(4), 3), "time": 1.0}
    columns |= {"measure": "ntk_change", "layer": "all"}
    for _ in range(trials):
        noise = np.exp(0.3 * generator.standard_normal(len(widths)))
        row = fit_slopes(pd.DataFrame(columns | {"value": 2 * widths**-0.5 * noise})).iloc[0]
        hits += row["lower"] < -0.5 < row["upper"]
    assert abs(hits / trials - 0.95) < 4 * np.sqrt(0.05 * 0.95 / trials)


def test_an_exact_power_law_is_found_at_the_end_of_training_only():
    rows = [
        ("a", width, seed, time, "flow_gap", "all", (1 + time) * 3.0 * width**-0.7)
        for width in (8, 64)
        for seed in (0, 1)
        for time in (0.0, 1.0)
    ]
    row = fit_slopes(pd.DataFrame(rows, columns=list(COLUMNS))).iloc[0]
    assert row["slope"] == pytest.approx(-0.7)
    assert row["at_widest"] == pytest.approx(6 * 64**-0.7)
    assert row["num_values"] == 4


def test_finished_parts_are_kept_and_broken_ones_redone(tmp_path, monkeypatch):
    whole = run(directory=tmp_path)
    trained = []
    original = sweep_module.train_width

    def counted(*args, name, **settings):
        trained.append(name)
        return original(*args, name=name, **settings)

    monkeypatch.setattr(sweep_module, "train_width", counted)
    pd.testing.assert_frame_equal(run(directory=tmp_path).table, whole.table)
    assert not trained
    broken = tmp_path / "unregularized-32.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    (tmp_path / "regularized-16.parquet").unlink()
    pd.testing.assert_frame_equal(run(directory=tmp_path).table, whole.table)
    assert trained == ["'regularised' at width 16", "'unregularised' at width 32"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "changed",
    [
        {"key": jax.random.key(1)},
        {"time": 1.5},
        {"num_seeds": 3},
        {"num_kernel_points": 5},
        {"network": nb.dense_network(depth=1, activation="erf", bias_scale=0.2)},
        {"conditions": {"regularized": dataclasses.replace(TWO["regularized"], prior_precision=2)}},
    ],
)
def test_files_of_other_settings_are_not_taken(tmp_path, changed):
    one = {"widths": (16,), "conditions": {"regularized": TWO["regularized"]}}
    before = run(**one, directory=tmp_path).table
    after = run(**(one | changed), directory=tmp_path).table
    assert not before.equals(after)
    pd.testing.assert_frame_equal(after, run(**(one | changed)).table)


def test_networks_do_not_depend_on_what_else_is_swept():
    whole = run().table
    alone = run(conditions={"unregularized": TWO["unregularized"]}, widths=(32,)).table
    part = whole[(whole["condition"] == "unregularized") & (whole["width"] == 32)]
    pd.testing.assert_frame_equal(part.reset_index(drop=True), alone)


def test_a_width_that_does_not_fit_is_refused_before_it_is_allocated():
    with pytest.raises(
        ValueError, match=r"networks of width 10000000 .* needs .* GB, but .* up to"
    ):
        run(widths=(16, 10_000_000), network=nb.dense_network(depth=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, "number of widths must be at least 1"),
        ({"widths": (0, 16)}, "smallest width must be at least 1"),
        ({"num_seeds": 0}, "num_seeds must be at least 1"),
        ({"time": 0.0}, "time must be positive"),
        ({"step": 100.0}, "stable only below"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run(**settings)


def test_a_level_of_intervals_beyond_one_is_refused(claims):
    with pytest.raises(ValueError, match="level must lie between 0 and 1, but is 95"):
        fit_slopes(claims.table, level=95)


def test_progress_rises_to_one():
    seen = []
    run(progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 20


def test_figures_show_every_measure_condition_and_width():
    swept = run(conditions=CONDITIONS, time=0.5)
    width, time, layers = (
        plot(swept.table) for plot in (plot_against_width, plot_against_time, plot_layers)
    )
    titles = [axes.get_title() for axes in width.axes]
    assert titles == [
        MEASURES[m] for m in ("ntk_change", "linearization_gap", "flow_gap", "end_gap")
    ]
    (legend,) = width.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        *(condition.title for condition in CONDITIONS.values()),
        "slope −½",
    }
    line = next(line for line in time.axes[0].get_lines() if line.get_label() == "width 32")
    at_end = np.exp(np.log(values(swept, "regularized", "ntk_change", 32)).mean())
    assert line.get_ydata()[-1] == pytest.approx(at_end)
    assert [axes.get_title() for axes in layers.axes] == ["layer 1", "layer 2", "all weights"]
    with pytest.raises(ValueError, match="unknown measure"):
        plot_against_width(swept.table, measures=("ntk_chang",))


@pytest.fixture
def _jax_has_started(monkeypatch):
    monkeypatch.setattr(cli, "_start_jax", lambda: None)


@pytest.fixture
def _small_study(monkeypatch):
    small = lazy_study.LazyConfig(
        "moons", depth=1, activation="erf", num_train=8, num_records=3, time=0.5, num_seeds=2,
        ensemble_widths=(4,), num_members=40,
    )  # fmt: skip
    monkeypatch.setitem(lazy_study.STUDIES, "moons", small)


@pytest.mark.slow
@pytest.mark.usefixtures("_jax_has_started", "_small_study")
def test_the_command_writes_table_slopes_and_figures_and_resumes(tmp_path):
    arguments = ["lazy", "moons", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli.app, [*arguments, "--widths", "16,8"])
    assert done.exit_code == 0, done.output
    for words in ("squared error", "relative change of the NTK", "40 trained", "ntk, perturbed"):
        assert words in done.output
    table = pd.read_parquet(tmp_path / "lazy.parquet")
    assert set(table["condition"]) == set(CONDITIONS)
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert figures == [
        f"{name}.png" for name in ("ensembles", "layers", "time", "variances", "width")
    ]
    wider = CliRunner().invoke(cli.app, [*arguments, "--widths", "8,16,24"])
    assert wider.exit_code == 0, wider.output
    assert "width 24" in wider.stderr
    assert "width 16" not in wider.stderr
    other = CliRunner().invoke(cli.app, [*arguments, "--widths", "8", "--num-seeds", "3"])
    assert other.exit_code == 2
    assert "num_seeds was 2, now 3" in other.stderr


@pytest.mark.usefixtures("_jax_has_started")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["moon"], "moons"),
        (["moons", "--widths", "8,x"], "integers with commas"),
        (["moons", "--widths", "0"], "smallest width"),
        (["moons", "--time", "-1"], "time must be positive"),
    ],
)
def test_the_command_refuses_bad_input_in_one_line(tmp_path, arguments, words):
    done = CliRunner().invoke(cli.app, ["lazy", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
