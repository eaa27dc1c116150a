"""Progress of long computations: the time that is left, and a bar in notebooks.

In a notebook a long call that is given no ``progress`` (``on_progress``) of one's own shows a bar
after a second, which disappears at the end; elsewhere it shows nothing. The environment variable
``NTKBAYES_PROGRESS=off`` (in a notebook ``%env NTKBAYES_PROGRESS=off``) switches the bars off.
"""

import inspect
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from ntkbayes._types import OnProgress

__all__ = ["TimeLeft", "bar_in_notebooks", "notebook_bar"]

DELAY = 1.0
"""Seconds before a bar is shown: short calls have none."""
ENOUGH_SECONDS, ENOUGH = 5.0, 0.05
"""What must have passed of a step, and its part that must be done, before its end is foretold."""

_inside: ContextVar[bool] = ContextVar("inside", default=False)


class TimeLeft:
    """Say how long a step will take from here, as soon as that can be told.

    The rate is that from the first part that was finished on: what came before was compilation.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.step = clock, ""
        self.begin: tuple[float, float] | None = None

    def __call__(self, step: str, part: float) -> str:
        """Return "40 s left", "compiling", or nothing, of a step of which a part is done."""
        now = self.clock()
        if step != self.step:
            self.step, self.begin = step, None
        if part == 0:
            return "compiling"
        if self.begin is None:
            self.begin = (now, part)
        seconds, done = now - self.begin[0], part - self.begin[1]
        if part >= 1 or seconds < ENOUGH_SECONDS or done < ENOUGH:
            return ""
        return f"{_in_words(seconds / done * (1 - part))} left"


def bar_in_notebooks[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that takes `progress` or `on_progress`: in notebooks a bar is default.

    What such a function calls in turn shows no bar of its own.
    """
    name = "on_progress" if "on_progress" in inspect.signature(function).parameters else "progress"
    title = function.__name__.replace("_", " ")

    @wraps(function)
    def shown(*args: Any, **kwargs: Any) -> R:
        if _inside.get():
            return function(*args, **kwargs)
        token = _inside.set(True)
        try:
            if name in kwargs or not _wanted():
                return function(*args, **kwargs)
            with notebook_bar(title) as bar:
                report = bar if name == "on_progress" else lambda part: bar(title, part, part)
                return function(*args, **kwargs, **{name: report})
        finally:
            _inside.reset(token)

    return shown


@contextmanager
def notebook_bar(title: str) -> Iterator[OnProgress]:
    """Show a bar, after a while, until the block ends."""
    left = TimeLeft()
    with _tqdm()(
        total=1.0, desc=title, leave=False, delay=DELAY, miniters=0,
        bar_format="{desc} |{bar:30}| {percentage:3.0f} %{postfix}", postfix="compiling",
    ) as bar:  # fmt: skip
        first = threading.Timer(DELAY, bar.refresh)  # the first step may take long
        first.daemon = True
        first.start()

        def report(step: str, fraction: float, part: float) -> None:
            bar.set_description_str(step, refresh=False)
            bar.set_postfix_str(left(step, part), refresh=False)
            bar.update(fraction - bar.n)

        try:
            yield report
        finally:
            first.cancel()


def _wanted() -> bool:
    """Whether this is a notebook in which bars are not switched off."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    in_kernel = any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
    return in_kernel and os.environ.get("NTKBAYES_PROGRESS", "on").lower() != "off"


def _tqdm() -> Callable[..., Any]:
    """Bars as widgets, or as text where there is no ipywidgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
