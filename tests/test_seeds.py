"""Comparisons over several seeds: means, ranks and paired differences."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from ntkbayes.evaluation import seed_table

NLL = {"HMC": [0.2, 0.4, 0.3], "Laplace": [0.5, 0.9, 0.4], "Mode": [0.1, 0.5, 0.3]}


def long_table(values, metric="nll", dataset="iris"):
    return pd.DataFrame(
        [
            {"dataset": dataset, "seed": s, "method": m, "metric": metric, "value": v}
            for m, row in values.items()
            for s, v in enumerate(row)
        ]
    )


def cell(table, method, column, metric="nll"):
    return table.set_index(["metric", "method"]).loc[(metric, method), column]


def test_means_and_errors_are_those_over_seeds():
    table = seed_table(long_table(NLL))
    assert list(table["method"]) == list(NLL)
    for method, values in NLL.items():
        assert cell(table, method, "num_seeds") == 3
        np.testing.assert_allclose(cell(table, method, "value"), np.mean(values), rtol=1e-14)
        error = scipy.stats.sem(values)
        np.testing.assert_allclose(cell(table, method, "standard_error"), error, rtol=1e-12)


def test_ranks_are_taken_seed_by_seed_and_ties_share_theirs():
    table = seed_table(long_table(NLL))  # seed by seed: 2 3 1, 1 3 2, 1.5 3 1.5
    ranks = [cell(table, method, "rank") for method in ("HMC", "Laplace", "Mode")]
    np.testing.assert_allclose(ranks, [1.5, 3, 1.5], rtol=1e-14)


def test_a_seed_without_a_value_leaves_the_ranks_of_the_others():
    values = {"HMC": [0.6, 0.7], "Laplace": [np.nan, 0.8], "Mode": [0.5, 0.9]}
    table = seed_table(long_table(values, "error_auroc"))
    ranks = [cell(table, method, "rank", "error_auroc") for method in values]
    np.testing.assert_allclose(ranks, [(1 + 3) / 2, 2, (2 + 1) / 2])


@pytest.mark.parametrize(
    ("metric", "best"),
    [("accuracy", "high"), ("rmse", "low"), ("coverage_90", "nominal")],
)
def test_the_best_is_what_the_metric_says(metric, best):
    values = {"low": [0.1, 0.2], "nominal": [0.88, 0.91], "high": [0.99, 1.0]}
    table = seed_table(long_table(values, metric))
    assert cell(table, best, "rank", metric) == 1


def test_metrics_without_a_best_have_no_rank():
    table = seed_table(long_table(NLL, "predictive_entropy"))
    assert table["rank"].isna().all()


def test_differences_are_paired_and_their_interval_is_students():
    table = seed_table(long_table(NLL), baseline="HMC")
    expected = scipy.stats.ttest_rel(NLL["Laplace"], NLL["HMC"]).confidence_interval(0.95)
    found = [cell(table, "Laplace", name) for name in ("difference_low", "difference_high")]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(cell(table, "Laplace", "difference"), 0.3, rtol=1e-12)
    assert cell(table, "HMC", "difference") == 0


def test_datasets_and_metrics_are_kept_apart_and_the_order_of_rows_does_not_matter():
    worse = {method: [10 * v for v in values] for method, values in NLL.items()}
    long = pd.concat(
        [long_table(NLL), long_table(worse, dataset="wine"), long_table(worse, "brier")]
    )
    table = seed_table(long, baseline="HMC")
    shuffled = seed_table(long.sample(frac=1, random_state=0), baseline="HMC")
    keys = ["dataset", "metric", "method"]
    pd.testing.assert_frame_equal(
        table.set_index(keys), shuffled.set_index(keys).loc[table.set_index(keys).index]
    )
    np.testing.assert_allclose(
        table.loc[table["dataset"] == "wine", "difference"],
        10 * table.loc[(table["dataset"] == "iris") & (table["metric"] == "nll"), "difference"],
        atol=1e-12,
    )


def test_a_distance_from_the_baseline_has_no_difference_from_it():
    distance = {"Laplace": [0.1, 0.2], "Mode": [0.3, 0.1]}  # the reference has no such row
    long = pd.concat([long_table(NLL), long_table(distance, "total_variation")])
    table = seed_table(long, baseline="HMC")
    rows = table.loc[table["metric"] == "total_variation"]
    assert rows["difference"].isna().all()
    assert list(rows["rank"]) == [1.5, 1.5]


def test_a_seed_without_a_value_does_not_count():
    table = seed_table(long_table(NLL | {"Mode": [0.1, np.nan, 0.3]}))
    assert cell(table, "Mode", "num_seeds") == 2
    np.testing.assert_allclose(cell(table, "Mode", "value"), 0.2, rtol=1e-14)
    np.testing.assert_allclose(cell(table, "Mode", "standard_error"), 0.1, rtol=1e-14)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda long: long.drop(columns="seed"), "lacks seed"),
        (lambda long: long.iloc[:0], "is empty"),
        (lambda long: long.iloc[:-1], "Mode lacks some .* of nll on iris"),
        (lambda long: pd.concat([long, long.iloc[:1]]), "a seed twice"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        seed_table(change(long_table(NLL)))


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="one of the methods, but is 'GP'"):
        seed_table(long_table(NLL), baseline="GP")


def test_rows_of_several_splits_are_refused():
    long = long_table(NLL).assign(split="test")
    assert len(seed_table(long, baseline="HMC")) == 3
    long.loc[long["method"] == "Mode", "split"] = "val"
    with pytest.raises(ValueError, match="of iris it holds test and val"):
        seed_table(long, baseline="HMC")
