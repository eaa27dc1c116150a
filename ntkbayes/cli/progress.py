"""Progress of a command: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ntkbayes._types import OnProgress

__all__ = ["progress_shown"]

LEAST = 0.1
"""Progress within a step that is worth a line."""


@contextmanager
def progress_shown(clock: Callable[[], float] = time.monotonic) -> Iterator[OnProgress]:
    """Show a bar with the time left of the step on a terminal; elsewhere lines, for every tenth."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    shown = _Bar(console, clock)
    with shown.bar:
        yield shown


class _Bar:
    def __init__(self, console: Console, clock: Callable[[], float]):
        from ntkbayes._progress import TimeLeft

        self.left = TimeLeft(clock)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=1.0, left="")

    def __call__(self, step: str, fraction: float, part: float) -> None:
        left = self.left(step, part)
        self.bar.update(self.task, description=step, completed=fraction, left=left)


class _Lines:
    def __init__(self, console: Console):
        self.console, self.step, self.fraction = console, "", 0.0

    def __call__(self, step: str, fraction: float, part: float) -> None:
        if step != self.step or fraction >= self.fraction + LEAST:
            self.console.print(f"{fraction:4.0%}  {step}", highlight=False)
            self.step, self.fraction = step, fraction
