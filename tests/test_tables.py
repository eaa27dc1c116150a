"""Tables to read: texts, Markdown, LaTeX, files."""

import numpy as np
import pandas as pd
import pytest

from ntkbayes.evaluation import (
    METRICS,
    latex_table,
    markdown_table,
    seed_table,
    wide_table,
    write_table,
)

COLUMNS = [
    *("dataset", "split", "method", "metric", "value", "standard_error"),
    *("from_best", "from_best_error", "monte_carlo_floor", "calibration_floor"),
    "num_units",
]
LONG = pd.DataFrame(
    [
        ("d", "test", "HMC", "accuracy", 0.9624, 0.0081, 0.0, 0.0, np.nan, np.nan, 100),
        ("d", "test", "Deep_E & Co", "accuracy", 0.95, 0.0102, 0.0124, 0.0063, np.nan, np.nan, 100),
        ("d", "test", "GP", "accuracy", 0.9, 0.0102, 0.0624, 0.0063, np.nan, np.nan, 100),
        ("d", "test", "GP", "total_variation", 0.01234, 0.0004, 0.0, 0.0, 0.005, np.nan, 100),
        ("d", "test", "GP", "predictive_entropy", 0.3, 0.02, np.nan, np.nan, np.nan, np.nan, 100),
    ],
    columns=COLUMNS,
)


def test_the_wide_table_writes_value_and_error_in_the_given_order():
    wide = wide_table(LONG)
    assert list(wide.index) == ["HMC", "Deep_E & Co", "GP"]
    assert list(wide.columns) == [
        *("accuracy", "total_variation", "total_variation_floor", "predictive_entropy"),
    ]
    assert wide.loc["HMC", "accuracy"] == "0.962 ± 0.008"
    assert list(wide.loc["HMC"][1:]) == ["–", "–", "–"]
    assert list(wide.loc["GP"]) == [
        *("0.900 ± 0.010", "0.0123 ± 0.0004", "0.0050", "0.300 ± 0.020"),
    ]


def test_metrics_can_be_chosen_and_put_in_order():
    wide = wide_table(LONG, metrics=["predictive_entropy", "accuracy"])
    assert list(wide.columns) == ["predictive_entropy", "accuracy"]
    with pytest.raises(ValueError, match="unknown metric 'acuracy': did you mean accuracy"):
        wide_table(LONG, metrics=["acuracy"])


def test_a_value_without_an_error_stands_alone():
    long = LONG.assign(standard_error=np.nan)
    assert wide_table(long).loc["HMC", "accuracy"] == "0.962"


def test_a_method_without_a_value_shows_none_and_is_not_marked():
    columns = ["value", "standard_error", "from_best", "from_best_error"]
    long = LONG.copy()
    long.loc[1, columns] = np.nan
    assert list(wide_table(long)["accuracy"]) == ["0.962 ± 0.008", "–", "0.900 ± 0.010"]
    assert "| Deep_E & Co | – |" in markdown_table(long, metrics=["accuracy"])


def test_a_table_of_two_datasets_is_not_mixed_up():
    with pytest.raises(ValueError, match="a metric of a method twice; select one dataset"):
        wide_table(pd.concat([LONG, LONG]))


def test_markdown_marks_the_best_and_what_is_as_good():
    lines = markdown_table(LONG, metrics=["accuracy", "predictive_entropy"]).splitlines()
    assert lines[0] == "| method | accuracy | entropy |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == "| HMC | **0.962 ± 0.008** | – |"
    assert (
        lines[3] == "| Deep_E & Co | 0.950 ± 0.010 ≈ | – |"
    )  # 0.0124 < 1.984 · 0.0063, Student with 99 d.f.
    assert lines[4] == "| GP | 0.900 ± 0.010 | 0.300 ± 0.020 |"
    assert "95 % interval of the paired difference" in lines[6]
    few = markdown_table(LONG.assign(num_units=2), metrics=["accuracy"]).splitlines()
    assert few[4] == "| GP | 0.900 ± 0.010 ≈ |"  # 0.0624 < 12.7 · 0.0063, one degree of freedom


def test_latex_is_a_booktabs_table_with_special_characters_escaped():
    text = latex_table(LONG, metrics=["accuracy", "total_variation"])
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrr}"):
        assert rule in text
    assert r"HMC & \textbf{0.962 $\pm$ 0.008} & -- & -- \\" in text
    assert r"Deep\_E \& Co & 0.950 $\pm$ 0.010 $\approx$ & -- & -- \\" in text
    arrows = r"accuracy $\uparrow$ & total variation $\downarrow$ & total variation floor \\"
    assert f" & {arrows}" in text
    assert not set("±–≈_−") & set(text.replace(r"\_", ""))
    key = text.splitlines()[-1]
    assert key.startswith(r"\par\smallskip{\footnotesize $\pm$: standard error over test points.")
    assert r"may be ranked by. $\approx$: the 95 \% interval" in key


def test_every_character_that_latex_reads_as_something_else_is_escaped():
    name = r"a#b$c{d}e~f^g\h|i<j>k%l&m_n"
    text = latex_table(LONG.replace("GP", name), metrics=["accuracy"])
    row = next(line for line in text.splitlines() if line.startswith("a"))
    assert row.split(" & ")[0] == (
        r"a\#b\$c\{d\}e\textasciitilde{}f\textasciicircum{}g\textbackslash{}h\textbar{}i"
        r"\textless{}j\textgreater{}k\%l\&m\_n"
    )


def test_a_negative_number_has_a_minus_sign_in_latex():
    text = latex_table(LONG.assign(value=-0.5), metrics=["predictive_entropy"])
    assert r"$-$0.500 $\pm$ 0.020" in text


def test_a_bar_in_a_name_does_not_end_a_cell_of_markdown():
    text = markdown_table(LONG.replace("GP", "p(y|x)"), metrics=["accuracy"])
    assert r"| p(y\|x) | 0.900 ± 0.010 |" in text


def test_a_metric_is_found_by_its_title_too():
    pd.testing.assert_frame_equal(
        wide_table(LONG, metrics=["total variation", "entropy"]),
        wide_table(LONG, metrics=["total_variation", "predictive_entropy"]),
    )
    assert METRICS["NLL"] is METRICS["nll"] is METRICS["classification"]["nll"]
    assert METRICS["AUROC"] is METRICS["detection"]["auroc"]
    with pytest.raises(ValueError, match="unknown metric 'nil': did you mean nll"):
        METRICS["nil"]
    assert "nll" not in METRICS  # tasks are what it lists


def test_tables_of_other_kinds_have_a_column_for_each_kind_of_row():
    rows = [
        (method, score, "auroc", value, 0.01)
        for method, values in (("a", (0.7, 0.8)), ("b", (0.6, 0.9)))
        for score, value in zip(("predictive_entropy", "mutual_information"), values, strict=True)
    ]
    long = pd.DataFrame(rows, columns=["method", "score", "metric", "value", "standard_error"])
    wide = wide_table(long)
    assert wide.columns.tolist() == ["auroc, predictive_entropy", "auroc, mutual_information"]
    assert wide.loc["b"].tolist() == ["0.600 ± 0.010", "0.900 ± 0.010"]
    latex = latex_table(long)
    assert r" & AUROC, predictive entropy $\uparrow$ & AUROC, mutual information" in latex
    assert "Bold" not in latex
    assert "Bold" not in markdown_table(long)


def test_a_table_of_seeds_has_a_column_for_each_dataset_and_says_over_what():
    rows = [
        (dataset, seed, method, "nll", seed + len(method) / 10)
        for dataset in ("x", "y")
        for seed in (0, 1)
        for method in ("one", "other")
    ]
    seeds = seed_table(pd.DataFrame(rows, columns=["dataset", "seed", "method", "metric", "value"]))
    text = latex_table(seeds)
    assert r" & NLL, x $\downarrow$ & NLL, y $\downarrow$ \\" in text
    assert r"one & 0.800 $\pm$ 0.500 & 0.800 $\pm$ 0.500 \\" in text
    assert "standard error over seeds." in text


def test_what_is_no_comparison_is_refused():
    with pytest.raises(ValueError, match="long lacks the column 'metric'"):
        wide_table(LONG.drop(columns="metric"))


@pytest.mark.parametrize("suffix", ["md", "tex", "csv", "parquet"])
def test_files_hold_what_their_suffix_says(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    write_table(LONG, path, metrics=["accuracy"])
    expected = LONG[LONG["metric"] == "accuracy"]
    if suffix == "parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(path), expected)
    elif suffix == "csv":
        pd.testing.assert_frame_equal(pd.read_csv(path), expected)
    else:
        write = {"md": markdown_table, "tex": latex_table}[suffix]
        assert path.read_text(encoding="utf-8") == write(LONG, metrics=["accuracy"])
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix of path '.xlsx'"):
        write_table(LONG, tmp_path / "table.xlsx")
