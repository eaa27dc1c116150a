"""Tables to read: texts, Markdown, LaTeX, files."""

import numpy as np
import pandas as pd
import pytest

from ntkbayes.evaluation import latex_table, markdown_table, wide_table, write_table

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
    assert " & accuracy & total variation & total variation floor" in text
    body = text[text.index(r"\begin") : text.index(r"\end")]
    assert not set("±–≈_") & set(body.replace(r"\_", ""))


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
