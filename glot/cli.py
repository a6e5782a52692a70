"""How a typed function becomes a command: help from its docstring, exit codes, progress that people can read."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glot.errors import InputError

Item = TypeVar("Item")

PLAIN_SECONDS = 10.0  # without a terminal: at most one progress line in this many seconds


def run(main: Callable[..., Any]) -> NoReturn:
    """Runs ``main`` as a command and exits: 0 done, 1 found wanting, 2 the user's mistake (one line, no trace).

    ``main`` may return an int to choose the exit code itself.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command(no_args_is_help=False)(main)
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        # click's own usage errors know how to print themselves; anything else is our bug and keeps its trace.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code if isinstance(code, int) else 0)


def progress(items: Iterable[Item], *, total: int, what: str) -> Iterator[Item]:
    """Yields ``items`` while showing how far we are: a bar on a terminal, plain lines otherwise."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield from bar.track(items, total=total, description=what)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= PLAIN_SECONDS or done == total:
            said = now
            left = (now - start) / done * (total - done)
            print(
                f"{what}: {done}/{total}, {now - start:.0f} s gone, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
