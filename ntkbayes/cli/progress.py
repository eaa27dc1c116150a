"""Progress of a command: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ntkbayes._types import OnProgress

__all__ = ["progress_shown"]

LEAST = 0.1
"""Progress within a step that is worth a line."""


@contextmanager
def progress_shown() -> Iterator[OnProgress]:
    """Show a bar with the time left on a terminal; elsewhere lines, for every step and tenth."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=120) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda step, fraction: bar.update(task, description=step, completed=fraction)


class _Lines:
    def __init__(self, console: Console):
        self.console, self.step, self.fraction = console, "", 0.0

    def __call__(self, step: str, fraction: float) -> None:
        if step != self.step or fraction >= self.fraction + LEAST:
            self.console.print(f"{fraction:4.0%}  {step}", highlight=False)
            self.step, self.fraction = step, fraction
