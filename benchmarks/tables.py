"""The tables of both READMEs, made from the results: nothing in them is typed.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; this writes them all again.

    python benchmarks/tables.py
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENTS = (HERE.parent / "README.md", HERE / "README.md")
BLOCK = re.compile(r"(<!-- table ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
METHODS = (
    "HMC", "Bayesian NTK ensemble", "GP", "NTK ensemble", "Deep ensemble", "Mode",
    "Mode, temperature-scaled", "Laplace",
)  # fmt: skip
CONDITIONS = {
    "regularized": "decay towards the initial weights",
    "smoothed_regularized": "the same, smoothed targets",
    "smoothed": "smoothed targets, no decay",
    "unregularized": "one-hot targets, no decay",
    "squared_error": "squared error, for comparison",
    "decay_to_zero": "decay towards *zero*",
}


def load(name, directory=RESULTS):
    """One benchmark's results, or None if it was not run."""
    path = directory / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def markdown(header, rows, *, num_texts=1):
    """Make a Markdown table: columns of text, then of numbers."""
    lines = [header, ["---"] * num_texts + ["---:"] * (len(header) - num_texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def speed_table(directory=RESULTS):
    """Say how many times as long peers take for what we do."""
    rows = []
    if found := load("dense_kernel", directory):
        size = f"{found['num_points']:,} points, {found['num_features']} features"
        row = (f"NTK of a dense network, {size}", "neural-tangents", found["ratios"]["NTK"])
        rows.append(row)
    if (found := load("classification_ensemble", directory)) and found["peers"]:
        member = found["ensembles"][0]["seconds_per_member_with_fit"]
        what = f"one trained classifier, digits, n = {found['num_train']:,}"
        network = found["peers"]["trained_network"]["seconds"] / member
        rows.append((what, "gradient descent, width 1,024", network))
        modes = found["peers"]["scikit_learn"]["seconds"] / member
        rows.append((what, "scikit-learn, one class against the rest", modes))
    if found := load("posteriors", directory):
        laplace, chains = found["laplace"], found["chains"]
        what = f"Laplace, ten coupled classes, n = {laplace['num_train']:,}"
        rows.append((what, "scikit-learn, one class against the rest", laplace["ratio"]))
        what = f"HMC, {chains['num_latent']:,} latent values, effective draws per second"
        rows.append((what, "BlackJAX, NUTS", chains["ratio_min"]))
    if found := load("finite_laplace", directory):
        what = f"Laplace of a finite network, {found['num_parameters']:,} weights"
        rows.append((what, "laplace-torch", found["ratio"]))
    texts = [[what, peer, f"**{_ratio(ratio)}×**"] for what, peer, ratio in rows]
    return markdown(["", "compared with", "times as fast"], texts, num_texts=2)


def _ratio(ratio):
    return f"{ratio:,.0f}" if ratio >= 20 else f"{ratio:.1f}"


def kernel_table():
    """Time, memory and accuracy of dense kernels beside neural-tangents'."""
    found = load("dense_kernel")
    bare = found["median_seconds"]["X Xᵀ"]
    rows = []
    for kind, title in (("NTK", "NTK"), ("both", "NNGP and NTK")):
        for side in ("ntkbayes", "neural-tangents"):
            name = f"{side} {kind}"
            errors = found["errors"].get(name)
            rows.append(
                [
                    f"{side}, {title}",
                    f"{found['median_seconds'][name] / bare:.2f}",
                    f"**{found['ratios'][kind]:.1f}×**" if side == "ntkbayes" else "",
                    f"{found['memory_in_inputs'][name]:.1f}",
                    *(f"{errors[k]:.1e}" if errors else "" for k in ("distinct", "coinciding")),
                ]
            )
    header = ["", "time / X Xᵀ", "ratio", "memory / X", "error, distinct points"]
    return markdown([*header, "error, coinciding points"], rows)


def member_table():
    """Work of one member, solver and shares, in products of K with (n, c) numbers."""
    rows = []
    for row in load("classification_ensemble")["ensembles"]:
        own, largest = row["gemm_equivalents_mean"], row["gemm_equivalents_max"]
        shared = row["shared_gemm_equivalents_per_member"]
        perturbed = ", perturbed" if row["perturb_targets"] else ""
        rows.append(
            [
                f"λ = {row['prior_precision']:g}, {row['initial']}{perturbed}",
                f"{own:.1f} ({largest:.0f})",
                f"{shared:.1f}",
                f"**{own + shared:.1f}**",
                f"{row['error_bound_max']:.1e}",
                _gigabytes(row["gigabytes_fit"]),
                _gigabytes(row["gigabytes_members"]),
            ]
        )
    header = ["", "f₀, solver and certificate, mean (largest)", "shared", "everything"]
    return markdown([*header, "largest error bound", "GB, fit", "GB, members"], rows)


def _gigabytes(value):
    return "" if value is None else f"{value:.2f}"


def posterior_speed_table():
    """Show seconds, effective draws and accuracy of Laplace and HMC beside their peers'."""
    found = load("posteriors")
    laplace, chains = found["laplace"], found["chains"]
    ours, peer = chains["ntkbayes"], chains["blackjax"]

    def row(what, name, digits=0):
        a, b = ours[name], peer[name]
        return [what, f"{a:.{digits}f}", f"{b:.{digits}f}", f"**{a / b:.1f}×**"]

    rows = [
        [
            f"Laplace, n = {laplace['num_train']:,}, ten coupled classes, seconds to fit",
            f"{laplace['seconds']:.2f}",
            f"{laplace['scikit_learn_seconds']:.1f} (scikit-learn)",
            f"**{laplace['ratio']:.1f}×**",
        ],
        [
            "its memory, GB",
            _gigabytes(laplace["gigabytes"]), _gigabytes(laplace["scikit_learn_gigabytes"]), "",
        ],
        [
            "its log loss at 300 test points",
            f"{laplace['log_loss']:.3f}", f"{laplace['scikit_learn_log_loss']:.3f}", "",
        ],
        row("HMC, smallest effective size per second", "min_ess_per_second"),
        row("the same, median", "median_ess_per_second"),
        [
            "leapfrog steps per draw",
            f"{ours['leapfrog_steps_per_draw']:.0f}", f"{peer['leapfrog_steps_per_draw']:.0f}", "",
        ],
        ["largest R-hat", f"{ours['max_rhat']:.3f}", f"{peer['max_rhat']:.3f}", ""],
        ["memory, GB", _gigabytes(ours["gigabytes"]), _gigabytes(peer["gigabytes"]), ""],
    ]  # fmt: skip
    return markdown(["", "ntkbayes", "peer (BlackJAX)", "ratio"], rows)


def lazy_table(name):
    """Slopes of a sweep against width."""
    slopes = _slopes(load(name)["slopes"])
    rows = []
    for condition, title in CONDITIONS.items():
        gap = slopes.get((condition, "flow_gap"))
        texts = [_interval(slopes[condition, name]) for name in ("ntk_change", "linearization_gap")]
        rows.append([title, *texts, _interval(gap) if gap else "no such limit"])
    return markdown(
        ["", "change of the NTK", "distance to own linearisation", "distance to infinite width"],
        rows,
    )


def long_table():
    """Digits without decay until time 100: what still moves, and slopes then."""
    found = load("lazy_digits")
    slopes = _slopes(found["long_slopes"])
    rows = []
    for condition in ("smoothed", "unregularized"):
        moved = [
            " → ".join(
                f"{_at(found['long_training'], condition, measure, 128, index):.2f}"
                for index in (-3, -1)
            )
            for measure in ("ntk_change", "logit_norm")
        ]
        end = slopes.get((condition, "end_gap"))
        texts = [_interval(end) if end else "no end"]
        rows.append([CONDITIONS[condition], *moved, *texts])
    return markdown(
        [
            "", "change of the NTK, width 128, time 32 → 100", "logit norm, the same",
            "slope of the distance to the end of training at infinite width",
        ],
        rows,
    )  # fmt: skip


def _slopes(records):
    return {(r["condition"], r["measure"]): r for r in records if r["layer"] == "all"}


def _interval(record):
    texts = (f"{record[name]:.2f}" for name in ("slope", "lower", "upper"))
    slope, low, high = (text.replace("-0.00", "0.00").replace("-", "−") for text in texts)
    return f"{slope} ({low} to {high})"


def _at(records, condition, measure, width, index):
    chosen = [
        (r["time"], r["value"])
        for r in records
        if (r["condition"], r["measure"], r["width"]) == (condition, measure, width)
    ]
    return sorted(chosen)[index][1]


def posterior_table():
    """Digits: distance from HMC, mean over seeds."""
    columns = ("total_variation", "energy_distance", "mean_distance", "covariance_distance")
    rows = _calibration_rows("digits", columns, [m for m in METHODS if m != "HMC"])
    header = ["", "total variation", "energy distance", "mean²", "covariance²"]
    return markdown(header, rows)


RANKED = {
    "accuracy": "accuracy", "nll": "NLL", "brier": "Brier", "ece_squared": "squared ECE",
    "aurc": "AURC",
}  # fmt: skip
"""What methods may be ranked by, as far as the results have it: `standard_error_table`."""


def rank_table():
    """Average rank over the five classification sets."""
    ranks = {row["method"]: row for row in load("calibration")["average_ranks"]}
    names = [name for name in RANKED if name in next(iter(ranks.values()))]
    best = {name: min(row[name] for row in ranks.values()) for name in names}
    order = sorted(ranks, key=lambda method: ranks[method]["nll"])
    rows = [
        [method, *(_bold(f"{ranks[method][n]:.1f}", ranks[method][n] == best[n]) for n in names)]
        for method in order
    ]
    return markdown(["", *(RANKED[name] for name in names)], rows)


CALIBRATION = {
    "ece_squared": (
        "Mean squared gap between confidence and accuracy, without bias: 0 if calibrated, below 0 "
        "by chance alone, in units of 0.001."
    ),
    "confidence_gap": (
        "Mean confidence minus accuracy: above 0 over-confident, below it too unsure."
    ),
    "smooth_ece": (
        "Smooth ECE, and after the bar what chance alone would show of a calibrated predictor with "
        "these confidences. Compare each value with its floor, not two methods."
    ),
}
"""Which calibration errors to show, if the results have them, and how to read them."""


def calibration_tables():
    """Show the calibration errors that the results have, each with how to read it."""
    found = load("calibration")
    there = {row["metric"] for row in found["table"]}
    floors = {
        (row["metric"], row["method"], row["dataset"]): row["floor"]
        for row in found.get("floors", [])
    }
    parts = []
    for metric, caption in CALIBRATION.items():
        if metric in there:
            scale = 1000 if metric == "ece_squared" else 1
            parts.append(f"{caption}\n\n{_calibration_table(found, metric, floors, scale)}")
    return "\n".join(parts)


def _calibration_table(found, metric, floors, scale):
    table = [row for row in found["table"] if row["metric"] == metric]
    datasets = list(dict.fromkeys(row["dataset"] for row in table))
    cells = {(row["method"], row["dataset"]): row for row in table}

    def text(method, dataset):
        row, floor = cells[method, dataset], floors.get((metric, method, dataset))
        numbers = [scale * row[name] for name in ("value", "standard_error")]
        digits = 1 if scale > 1 else 3
        value = " ± ".join(f"{number:.{digits}f}" for number in numbers).replace("-", "−")
        return value if floor is None else f"{value} ¦ {floor:.{digits}f}"

    methods = [m for m in METHODS if (m, datasets[0]) in cells]
    rows = [[method, *(text(method, dataset) for dataset in datasets)] for method in methods]
    return markdown(["", *(d.replace("_", " ") for d in datasets)], rows)


def standard_error_table():
    """Coverage of ± 1.96 standard errors and null rates of p-values, over the kinds of data."""
    found = load("standard_errors")
    sizes = sorted({int(name.rsplit(", ")[-1]) for name in found["cells"]})
    metrics = list(dict.fromkeys(metric for cell in found["cells"].values() for metric in cell))
    rows = []
    for metric in metrics:
        texts = []
        for what in ("coverage", "null_rate"):
            for size in sizes:
                values = [
                    100 * cell[metric][what]
                    for name, cell in found["cells"].items()
                    if name.endswith(f", {size}") and cell.get(metric, {}).get(what) is not None
                ]
                texts.append(_range(values))
        preferred = found.get("diffuse_preferred", {}).get(metric)
        texts.append("" if preferred is None else f"{100 * preferred:.0f}")
        rows.append([f"`{metric}`", *texts])
    header = ["", *(f"coverage, {n:,}" for n in sizes), *(f"null rate, {n:,}" for n in sizes)]
    return markdown([*header, "less sure preferred"], rows)


def rare_table():
    """Coverage and null rates where hardly an answer is wrong."""
    found = load("standard_errors")["rare"]
    sizes = sorted({int(name.rsplit(", ")[-1]) for name in found})
    rows = []
    for metric in dict.fromkeys(metric for cell in found.values() for metric in cell):
        texts = [
            _range([
                100 * cell[metric][what]
                for name, cell in found.items()
                if name.endswith(f", {size}") and cell.get(metric, {}).get(what) is not None
            ])
            for what in ("coverage", "null_rate")
            for size in sizes
        ]  # fmt: skip
        rows.append([f"`{metric}`", *texts])
    header = [f"{what}, {n}" for what in ("coverage", "null rate") for n in sizes]
    return markdown(["", *header], rows)


def _range(values):
    if not values:
        return ""
    low, high = (f"{end:.0f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _bold(text, wanted):
    return f"**{text}**" if wanted else text


def across_table(metric):
    """Set out one metric: methods by datasets, mean ± standard error over seeds."""
    table = [row for row in load("calibration")["table"] if row["metric"] == metric]
    datasets = [d for d in dict.fromkeys(row["dataset"] for row in table) if d != "diabetes"]
    cells = {(row["method"], row["dataset"]): row for row in table}
    methods = [m for m in METHODS if (m, datasets[0]) in cells]
    best = {d: min(cells[m, d]["value"] for m in methods) for d in datasets}
    rows = [[method, *(_best(cells[method, d], best[d]) for d in datasets)] for method in methods]
    return markdown(["", *(d.replace("_", " ") for d in datasets)], rows)


def _best(row, best):
    return _bold(_value(row), row["value"] == best)


def diabetes_table():
    """Show the regression's metrics."""
    columns = ("rmse", "nll", "crps", "coverage_90", "wasserstein_1")
    rows = _calibration_rows("diabetes", columns, METHODS)
    header = ["", "RMSE", "NLL", "CRPS", "coverage of 90 %", "Wasserstein-1 to HMC"]
    return markdown(header, rows)


def difference_table():
    """NLL minus HMC's on the same split, with its 95 % interval."""
    table = [row for row in load("calibration")["table"] if row["metric"] == "nll"]
    datasets = list(dict.fromkeys(row["dataset"] for row in table))
    cells = {(row["method"], row["dataset"]): row for row in table}
    rows = [
        [method, *(_difference(cells.get((method, dataset))) for dataset in datasets)]
        for method in METHODS
        if method != "HMC"
    ]
    return markdown(["", *(d.replace("_", " ") for d in datasets)], rows)


def _difference(row):
    if row is None:
        return ""
    texts = (row[name] for name in ("difference", "difference_low", "difference_high"))
    middle, low, high = (f"{value:+.3f}".replace("-", "−") for value in texts)
    clear = row["difference_low"] > 0 or row["difference_high"] < 0
    return _bold(middle, clear) + f" ({low} to {high})"


def _calibration_rows(dataset, columns, methods):
    table = [row for row in load("calibration")["table"] if row["dataset"] == dataset]
    cells = {(row["method"], row["metric"]): row for row in table}
    return [
        [method, *(_value(cells.get((method, name))) for name in columns)]
        for method in methods
        if any((method, name) in cells for name in columns)
    ]


def _value(row):
    if row is None:
        return ""
    return f"{row['value']:.3f} ± {row['standard_error']:.3f}".replace("-", "−")


TABLES = {
    "speed": speed_table,
    "dense kernel": kernel_table,
    "members": member_table,
    "posterior speed": posterior_speed_table,
    "lazy": lambda: lazy_table("lazy_moons"),
    "lazy digits": lambda: lazy_table("lazy_digits"),
    "long training": long_table,
    "posteriors": posterior_table,
    "ranks": rank_table,
    "nll": lambda: across_table("nll"),
    "nll differences": difference_table,
    "calibration errors": calibration_tables,
    "standard errors": standard_error_table,
    "rare answers": rare_table,
    "total variation": lambda: across_table("total_variation"),
    "diabetes": diabetes_table,
}


def with_tables(text):
    """Return the text of a document with all its tables written anew."""
    return BLOCK.sub(lambda block: block[1] + "\n" + TABLES[block[2]]() + "\n" + block[3], text)


def main():
    """Write the tables of both documents."""
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"written: {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
