"""When is training lazy? The study of `ntkbayes lazy`, with wider networks and longer training.

Two parts. The study itself: six conditions, widths to 4,096, ensembles of trained networks against
infinite width, variances against Laplace and HMC. And long training without a regulariser, with
one-hot targets and with smoothed ones: does the kernel come to rest, and how near to infinite width
are networks then? What is finished stays in `--directory`, from which the same command continues.

    python benchmarks/lazy_regime.py --directory runs/lazy-regime
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import scipy.stats
from common import add_out, write_results

import ntkbayes as nb
from ntkbayes.cli.progress import progress_shown
from ntkbayes.experiment.environment import environment
from ntkbayes.lazy import CONDITIONS, fit_slopes, plot_against_time
from ntkbayes.lazy.study import STUDIES, run_lazy_study

LONG = ("unregularized", "smoothed")


def long_training(config, directory, *, widths, time):
    """Train without a regulariser; return the table, of the measures at every record."""
    data = nb.load_dataset(config.dataset, seed=config.seed, num_train=config.num_train)
    sweep = nb.lazy.width_sweep(
        nb.dense_network(depth=config.depth, activation=config.activation),
        data.x_train.astype(config.dtype), data.y_train,
        data.x_test[: config.num_test].astype(config.dtype), key=jax.random.key(config.seed),
        conditions={name: CONDITIONS[name] for name in LONG}, widths=widths,
        num_seeds=config.num_seeds, time=time, num_records=16, directory=directory / "long",
    )  # fmt: skip
    return sweep.table


def means(table):
    """Geometric means over seeds at every record, of whole networks."""
    whole = table.loc[(table["layer"] == "all") & (table["value"] > 0), :]
    by = ["condition", "measure", "width", "time"]
    return whole.groupby(by)["value"].agg(scipy.stats.gmean).reset_index()


def main():
    """Run, write JSON and figures."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=sorted(STUDIES), default="moons")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024, 2048, 4096]
    )
    parser.add_argument("--long-widths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--long-time", type=float, default=1000.0)
    parser.add_argument("--directory", type=Path, default=Path("runs/lazy-regime"))
    add_out(parser)
    options = parser.parse_args()
    title = f"lazy_{options.dataset}"
    config = dataclasses.replace(STUDIES[options.dataset], widths=tuple(options.widths))
    with progress_shown() as on_progress:
        study = run_lazy_study(config, options.directory, on_progress=on_progress)
    for name in ("width", "time", "ensembles", "variances"):
        figure = options.directory / "figures" / f"{name}.png"
        (options.out / f"{title}_{name}.png").write_bytes(figure.read_bytes())
    long = long_training(
        config, options.directory, widths=options.long_widths, time=options.long_time
    )
    plot_against_time(long).savefig(options.out / f"{title}_long.png")
    table = study.sweep.table
    found = {
        "config": config.settings(),
        "slopes": study.slopes.to_dict("records"),
        "slopes_from_width": {
            width: fit_slopes(table.loc[table["width"] >= width, :]).to_dict("records")
            for width in options.widths[2:-1:2]
        },
        "ensembles": study.ensembles.to_dict("records"),
        "variances": study.variances.to_dict("records"),
        "long_training": means(long).to_dict("records"),
        "long_slopes": fit_slopes(long).to_dict("records"),
        "environment": environment(),
    }
    write_results(options.out, title, found)


if __name__ == "__main__":
    main()
