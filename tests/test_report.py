"""The report: what is in it, how it behaves in a browser, and how it is made again."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from metric_tables import long_table
from typer.testing import CliRunner

from ntkbayes import cli
from ntkbayes.evaluation import METRICS, headline_metrics, wide_table
from ntkbayes.evaluation.catalog import metric_title
from ntkbayes.evaluation.report import write_report
from ntkbayes.experiment import load_comparison, preset, run_comparison, running
from ntkbayes.experiment.description import reproduce

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
METHODS = (
    *("NTK ensemble", "Bayesian NTK ensemble", "Laplace", "GP", "HMC", "Mode", "Deep ensemble"),
)
NLL = (0.31, 0.29, 0.33, 1.05, 0.28, 0.30, 0.295)


def write_example(path, **changes):
    """Seven methods, all the metrics of a classification, and a wide figure."""
    names = ("accuracy", "nll", "brier", "ece_squared", "ece", "predictive_entropy")
    metrics = {n: dict(zip(METHODS, [(v, 0.01) for v in NLL], strict=True)) for n in names}
    metrics["agreement"] = {m: (0.98, 0.004) for m in METHODS if m != "HMC"}
    metrics["total_variation"] = {m: (0.02, 0.004, 0.01) for m in METHODS if m != "HMC"}
    figure = Figure(figsize=(11, 3))
    figure.add_subplot().plot([0, 1])
    content = {
        "title": "digits <&>",
        "table": wide_table(long_table(**metrics)),
        "verdict": ["A <b>claim</b>"],
        "facts": {"dataset": "digits"},
        "methods": pd.DataFrame({"what it is": ["a long description " * 5] * 7}, index=METHODS),
        "tables": {"Joint <it>": (pd.DataFrame({"a": ["0.5 & 1"]}, index=["HMC"]), "how to read")},
        "figures": {"How reliable": figure, "Again": figure},
        "notes": ["R-hat is <b>fine</b>", "WARNING: but"],
        "settings": {"num_train": 50, "long": "x" * 300},
        "versions": {"jax": "0.10"},
        "reproduce": {"In Python:": "run(" + "x" * 300 + ")"},
    }
    write_report(path, **content | changes)
    return path.read_text(encoding="utf-8")


def test_the_report_is_one_file_with_everything_inside(tmp_path):
    text = write_example(tmp_path / "report.html")
    assert "<h1>digits &lt;&amp;&gt;</h1>" in text
    assert "<li>A &lt;b&gt;claim&lt;/b&gt;</li>" in text
    assert "<li>R-hat is &lt;b&gt;fine&lt;/b&gt;</li>" in text
    assert '<p class="note">WARNING: but</p>' in text
    assert "<h2>Joint &lt;it&gt;</h2>" in text
    assert '<tr><th scope="row">HMC</th><td>0.5 &amp; 1</td></tr>' in text
    assert '<p class="small">how to read</p>' in text
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(images) == 2
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert "<figcaption>How reliable</figcaption>" in text
    assert text.count("<td>0.330 ± 0.010</td>") == 10  # four headline metrics, and all six again
    assert text.count("†</span></th>") == 1  # of these only ECE is not to be ranked
    assert "† Read it beside its floor or not at all" in text
    assert '<tr><th scope="row">num_train</th><td>50</td></tr>' in text
    assert not re.search(r'(src|href|action)="(?!data:)|url\(|@import|https?://', text)
    assert "default-src 'none'" in text  # the browser would refuse what slipped in
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_numbers_to_read_have_minus_signs_and_commands_have_hyphens(tmp_path):
    texts = pd.DataFrame({"Wasserstein-1": ["-1.72 (p = 1.9e-04)"]}, index=["HMC"])
    text = write_example(
        tmp_path / "report.html",
        table=pd.DataFrame({"nll": ["-0.002 ± 0.002"], "width_50": ["-inf"]}, index=["HMC"]),
        verdict=["Wasserstein-1 is -0.1, of 1-2 points"],
        facts={"prior precision": "1e-08"},
        methods=texts,
        tables={"Joint": (texts, "how")},
        notes=["R-hat 1.01, below 1e-06", "WARNING: -3"],
        settings={"prior_precision": 1e-08},
        versions={"built": "2026-09-01"},
        reproduce={"In Python:": "run(-1, 1e-08)"},
    )
    body = text[text.index("<body>") : text.index("<script>")]
    for read in (
        *("−0.002 ± 0.002", "−inf", "Wasserstein-1 is −0.1, of 1-2 points", "1e−08"),
        *("−1.72 (p = 1.9e−04)", "below 1e−06", "WARNING: −3"),
    ):
        assert read in body
    for copied in ("<td>1e-08</td>", "2026-09-01", "run(-1, 1e-08)"):
        assert copied in body


def test_remarks_repeat_nothing_that_stands_beside_the_table_of_the_report(finished):
    known = dataclasses.replace(finished, metrics=finished.metrics.assign(monte_carlo_floor=0.01))
    assert not any("floor" in text or "±" in text for text in known.remarks)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_report_opens_with_headline_metrics_that_rank_methods(tmp_path, task):
    names = list(METRICS[task])
    table = pd.DataFrame({name: ["1.000"] for name in [*names, "wasserstein_1_floor"]}, index=["A"])
    write_report(tmp_path / "report.html", title="t", table=table)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    wanted = [name for name in headline_metrics(task) if METRICS[task][name].ranked]
    if task == "regression":
        wanted.append("wasserstein_1_floor")
    found = re.findall(r'<th scope="col">([^<&]*)', text.split("<details>")[0])
    assert found == ["method", *(metric_title(name) for name in wanted)]


def test_a_report_needs_a_table_only(tmp_path):
    table = pd.DataFrame({"nll": ["1.000 ± 0.100"]}, index=["HMC"])
    write_report(tmp_path / "report.html", title="small", table=table)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<th scope="col">NLL&nbsp;<span' in text
    for absent in ("Figures</h2>", "Verdict", "floor", "<details>", "What was run", "reproduce"):
        assert absent not in text


def browse(path, script, *, width=1100, dark=False):
    """Run a script in the page, at a width of the window; what it evaluates to.

    The page stands in a frame of that width: the window of Chromium is never narrower than 500.
    """
    page, outer = path.with_name("page.html"), path.with_name("outer.html")
    reader = f"<script>parent.postMessage((() => {{ {script} }})(), '*');</script></body>"
    page.write_text(path.read_text("utf-8").replace("</body>", reader), encoding="utf-8")
    outer.write_text(
        "<!doctype html><title></title><script>addEventListener('message', (event) => {"
        "document.title = JSON.stringify(event.data); });</script>"
        f"<iframe src='page.html' style='border: 0; width: {width}px; height: 900px'></iframe>"
    )
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
        f"--user-data-dir={path.with_name('browser')}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        *("--virtual-time-budget=5000", "--dump-dom"),
        outer.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_example(path)
    return path


@needs_browser
@pytest.mark.parametrize("width", [360, 1100])
def test_nothing_is_wider_than_the_window(page, width):
    found = browse(
        page,
        """
        for (const part of document.querySelectorAll("details")) part.open = true;
        const tables = [...document.querySelectorAll(".scroll")];
        const first = tables[1].querySelector("tbody th");
        tables[1].scrollLeft = 10000;
        return {
          window: innerWidth, document: document.documentElement.scrollWidth,
          scrolling: tables.map(t => t.scrollWidth > t.clientWidth),
          offset: first.getBoundingClientRect().left - tables[1].getBoundingClientRect().left,
          images: [...document.images].map(i => i.complete && i.naturalWidth),
        };
        """,
        width=width,
    )
    assert found["window"] == width
    assert found["document"] <= width
    assert found["scrolling"][1:3] == [width < 700] * 2
    assert abs(found["offset"]) <= 1  # the names stay while the numbers scroll
    assert found["images"] == [1100, 1100]


@needs_browser
def test_a_click_on_a_heading_sorts_and_says_so(page):
    found = browse(
        page,
        """
        const table = document.querySelectorAll("table.sortable")[1];
        const heads = [...table.tHead.rows[0].cells];
        const column = heads.findIndex(h => h.textContent.startsWith("NLL"));
        const state = () => [
          [...table.tBodies[0].rows].map(r => r.cells[0].textContent),
          heads.map(h => h.getAttribute("aria-sort")),
        ];
        const button = heads[column].querySelector("button");
        button.focus();
        const states = [state()];
        for (const head of [column, column, 0, heads.length - 1]) {
          heads[head].querySelector("button").click();
          states.push(state());
        }
        return {
          states, column, focused: document.activeElement === button || button.tabIndex === 0
        };
        """,
    )
    before, up, down, names, distances = (order for order, _ in found["states"])
    ascending = [METHODS[i] for i in np.argsort(NLL)]
    assert before == list(METHODS)
    assert up == ascending  # by number: 1.05 comes last
    assert down == ascending[::-1]
    assert names == sorted(METHODS)
    assert distances[-1] == "HMC"  # it has no distance from itself
    marks = [[mark for mark in marks if mark] for _, marks in found["states"]]
    assert marks == [[], ["ascending"], ["descending"], ["ascending"], ["ascending"]]
    assert found["states"][1][1][found["column"]] == "ascending"
    assert found["focused"]


@needs_browser
def test_the_page_is_dark_where_the_reader_wants_it(page):
    script = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);"
    assert max(browse(page, script, dark=True)) < 64
    assert min(browse(page, script, dark=False)) == 255


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two quick methods on iris."""
    out = tmp_path_factory.mktemp("runs") / "iris"
    return run_comparison(preset("iris", methods=("laplace", "mode"), num_draws=20), out)


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_start_jax", lambda: None)
    monkeypatch.setattr(running, "_compute", lambda *a: pytest.fail("computed"))
    return shutil.copytree(finished.out, tmp_path / "copy")


def test_a_finished_comparison_is_read_back_as_it_was(finished, copy):
    again = load_comparison(copy)
    assert again.config == finished.config
    pd.testing.assert_frame_equal(again.metrics, finished.metrics, check_dtype=False)
    assert again.predictions.keys() == finished.predictions.keys()
    for title, tree in finished.predictions.items():
        assert again.predictions[title].equals(tree)
    assert again.remarks == finished.remarks


def test_the_report_is_written_again_from_the_files_alone(copy):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for path in (*copy.glob("figures/*"), copy / "report.html"):
        path.unlink()
    result = CliRunner().invoke(cli.app, ["report", str(copy)])
    assert result.exit_code == 0, result.output
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (".", "there is no directory"),
        ("config.toml", "holds no run of `ntkbayes compare`"),
        ("environment.json", "is not complete: environment.json missing or unreadable"),
        ("predictions/laplace.nc", "is not complete: predictions/laplace.nc missing"),
        ("metrics.parquet", "is not complete: metrics.parquet missing"),
    ],
)
def test_what_is_no_complete_run_is_refused_in_one_line(copy, missing, words):
    path = copy / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert words in refusal(copy)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.toml", "does not hold the settings of a comparison"),
        ("environment.json", "is not complete: environment.json missing or unreadable"),
        ("predictions/mode.nc", "may be half written"),
        ("metrics.parquet", "is not a readable table of metrics"),
    ],
)
def test_a_half_written_file_is_refused_in_one_line(copy, name, words):
    path = copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert words in refusal(copy)


def test_files_of_other_settings_are_refused_in_one_line(copy):
    path = copy / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("seed = 0", "seed = 1"))
    assert "was made with other settings than config.toml names" in refusal(copy)
    path.write_text(text)
    table = pd.read_parquet(copy / "metrics.parquet")
    table[table["method"] == "Mode"].to_parquet(copy / "metrics.parquet")
    assert "is not complete: metrics.parquet for Laplace missing" in refusal(copy)


def refusal(directory):
    result = CliRunner().invoke(cli.app, ["report", str(directory)])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_the_report_says_how_to_run_it_again(finished):
    ways = reproduce(finished)
    assert ways["On the command line:"] == (
        "ntkbayes compare iris --methods laplace,mode --num-draws 20 --out DIRECTORY"
    )
    script = ways["In Python:"].replace("run_comparison(config", "results.append((config")
    script = script.replace('"DIRECTORY")', '"DIRECTORY"))')
    results = []
    exec(script, {"results": results})
    ((config, _),) = results
    assert config.settings() == finished.config.settings()
    deeper = preset("iris", methods=("mode",), depth=3)
    assert next(iter(reproduce(SimpleNamespace(config=deeper)))) == "In Python:"
