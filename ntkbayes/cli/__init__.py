"""The command line: ``ntkbayes compare DATASET``, ``report DIR``, ``lazy DATASET``, and lists.

Bad input ends in one line on stderr and exit code 2; Ctrl-C in exit code 130, with the finished
methods on disk. The numerical libraries are imported inside the commands, after which this module,
as the program's owner, sets JAX up: double precision, and one CPU device per core for the chains.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ntkbayes.cli.progress import progress_shown
from ntkbayes.cli.tables import print_line, print_listing, show_comparison, show_lazy

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["app", "main"]

MAX_DEVICES = 4
INTERRUPTED = 130
"""Exit code of a program that Ctrl-C has ended."""


def _examples(*commands: str) -> str:
    """Text for the end of a help page; the backspace keeps the lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Is the spread of wide networks over random initialisations a usable uncertainty?",
    epilog=_examples(
        "ntkbayes compare moons",
        "ntkbayes compare digits --methods laplace,hmc --num-train 300",
        "ntkbayes lazy moons",
        "ntkbayes compare --help",
    ),
)


def main() -> None:
    """Run the command line; Ctrl-C ends it with 130 wherever it is, also while importing."""
    try:
        app()
    except KeyboardInterrupt:
        print_line("interrupted.", stderr=True)
        sys.exit(INTERRUPTED)


def _show_version(wanted: bool) -> None:
    if wanted:
        Console().print(f"ntkbayes {importlib.metadata.version('ntkbayes')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command(
    "compare",
    short_help="Compare methods on one dataset.",
    epilog=_examples(
        "ntkbayes compare moons",
        "ntkbayes compare wine --tune --seed 3 --out runs/wine-3",
        "ntkbayes compare digits --methods ntk-ensemble,laplace,hmc --num-train 300",
        "ntkbayes compare moons --config settings.toml --out runs/moons-erf",
    ),
)
def _compare(
    dataset: Annotated[str, typer.Argument(help="One of `ntkbayes datasets`.")],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names from `ntkbayes methods`, with commas between. Default: all. Methods that "
            "are finished in --out stay in the comparison."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results. Default: runs/DATASET.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the split and all random numbers. Default: 0.")
    ] = None,
    prior_precision: Annotated[
        float | None, typer.Option(help="λ > 0, against the summed loss. Default: per dataset.")
    ] = None,
    num_draws: Annotated[
        int | None,
        typer.Option(help="Draws per method; of HMC, per chain. Default: 1000; of digits, 600."),
    ] = None,
    num_train: Annotated[
        int | None, typer.Option(help="Training points. Default: the dataset's own.")
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First choose prior precision, noise and bias scale by log marginal likelihood "
            "on the training points; all methods share them.",
        ),
    ] = False,
    figures: Annotated[
        str, typer.Option(help="Files of the figures: png, pdf or svg; the report has its own.")
    ] = "png",
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with further settings, such as depth, width, activation, bias_scale, "
            "num_chains or num_warmup: those of the config.toml that every run writes. Options "
            "given here go first."
        ),
    ] = None,
) -> None:
    """Compare methods on one dataset: table, figures and a report.

    Running again with the same options and --out continues where the last run stopped.
    """
    with _one_line_errors():
        from ntkbayes.experiment import preset, read_settings, run_comparison

        settings = {} if config is None else read_settings(config)
        if settings.pop("dataset", dataset) != dataset:
            raise ValueError(f"{config} is of another dataset than {dataset}.")
        options = {
            "methods": None if methods is None else _method_names(methods),
            "seed": seed,
            "prior_precision": prior_precision,
            "num_draws": num_draws,
            "num_train": num_train,
            "tune": tune or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        chosen = preset(dataset, **(settings | given))
        directory = out or Path("runs") / dataset
        _start_jax()
        with _interruptible(directory), progress_shown() as on_progress:
            comparison = run_comparison(
                chosen, directory, on_progress=on_progress, figure_format=figures
            )
        show_comparison(comparison)


@app.command("report", epilog=_examples("ntkbayes report runs/moons"))
def _report(
    directory: Annotated[Path, typer.Argument(help="The --out of a finished `ntkbayes compare`.")],
    figures: Annotated[str, typer.Option(help="Files of the figures: png, pdf or svg.")] = "png",
) -> None:
    """Write a finished comparison's figures and report again."""
    with _one_line_errors():
        from ntkbayes.experiment import load_comparison
        from ntkbayes.experiment.directory import own_directory
        from ntkbayes.experiment.report import write_figures_and_report

        _start_jax()
        comparison = load_comparison(directory)
        with own_directory(directory):
            write_figures_and_report(comparison, figure_format=figures)
        print_line(f"Report: {directory / 'report.html'}")


@app.command(
    "lazy",
    epilog=_examples(
        "ntkbayes lazy moons",
        "ntkbayes lazy digits --widths 32,64,128,256,512 --out runs/lazy-wider",
    ),
)
def _lazy(
    dataset: Annotated[str, typer.Argument(help="moons or digits.")],
    widths: Annotated[
        str | None,
        typer.Option(
            help="Units per hidden layer, with commas between; slopes need two. Default: "
            "32,64,128,256,512; of digits, to 256."
        ),
    ] = None,
    num_seeds: Annotated[
        int | None, typer.Option(help="Networks per width. Default: 5; of digits, 3.")
    ] = None,
    time: Annotated[
        float | None,
        typer.Option(
            help="Training time, as of gradient flow on the summed loss. Default: 10; of digits, 5."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the data and all random numbers. Default: 0.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results. Default: runs/lazy-DATASET.")
    ] = None,
) -> None:
    """Measure how near their tangent trained networks stay.

    Three parts: networks along training, of the given widths; the distribution of many trained
    networks of widths 8 to 64 against the closed form; and the variance of ensembles against
    Laplace's and HMC's. Running again with the same options and --out continues where the last run
    stopped; widths may be added.
    """
    with _one_line_errors():
        from ntkbayes.lazy.study import lazy_config, run_lazy_study

        given = {"num_seeds": num_seeds, "time": time, "widths": _widths(widths), "seed": seed}
        config = lazy_config(dataset, **given)
        directory = out or Path("runs") / f"lazy-{dataset}"
        _start_jax()
        with _interruptible(directory), progress_shown() as on_progress:
            study = run_lazy_study(config, directory, on_progress=on_progress)
        show_lazy(study)


@app.command("datasets", epilog=_examples("ntkbayes datasets", "ntkbayes datasets | cut -f 1"))
def _datasets() -> None:
    """List the datasets.

    In a pipe: one a line, with tabs between name, task and text.
    """
    from ntkbayes.datasets import DATASETS

    print_listing({name: (d.task, f"{d.description} ({d.source})") for name, d in DATASETS.items()})


@app.command("methods", epilog=_examples("ntkbayes methods", "ntkbayes methods | cut -f 1"))
def _methods() -> None:
    """List the methods.

    In a pipe: one a line, with tabs between name, title and text.
    """
    from ntkbayes.methods import METHODS

    print_listing({name: (m.title, m.description) for name, m in METHODS.items()})


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print_line("interrupted.", stderr=True)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, TypeError, OSError, MemoryError) as error:
        from ntkbayes._typed import ArgumentTypeError

        if isinstance(error, TypeError) and not isinstance(error, ArgumentTypeError):
            raise  # a mistake of ours
        text = " ".join(str(error).split())
        print_line(f"error: {text}", stderr=True)
        raise typer.Exit(2) from None


@contextmanager
def _interruptible(directory: Path) -> Iterator[None]:
    """End a run that Ctrl-C interrupts by saying what is kept, with exit code 130.

    JAX hides a Ctrl-C that meets it inside a callback in an error of its own.
    """
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "KeyboardInterrupt" not in str(error):
            raise
        _say_interrupted(directory)
        raise typer.Exit(INTERRUPTED) from None


def _method_names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        raise ValueError(f"--widths must be integers with commas between, not {text!r}.") from None


def _start_jax() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", min(MAX_DEVICES, os.cpu_count() or 1))


def _say_interrupted(directory: Path) -> None:
    folder = directory / "predictions"
    finished = sorted(path.stem for path in folder.glob("[!.]*.nc"))
    kept = f"finished: {', '.join(finished)}" if finished else "no method had finished"
    kept = f"; {kept}" if folder.is_dir() else ""  # a lazy study keeps cells
    print_line(f"interrupted{kept}. The same command continues from {directory}.", stderr=True)
