"""A typed function becomes a command: help from its docstring, options from a dataclass, exit codes, progress.

A command's module imports only what its options need; it imports torch, Ray and the rest inside ``main``. So ``--help``
and mistakes in the options are answered at once.
"""

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glot.cores import limit_threads
from glot.errors import InputError, NotNowError

Item = TypeVar("Item")

NOT_FINISHED = 75  # exit code: run the same command again later
PLAIN_SECONDS = 10.0  # shortest time between two progress lines where there is no terminal


def run(main: Callable[..., Any]) -> NoReturn:
    """Runs ``main`` as a command and exits with its code.

    0: done. 1: partly done, some items failed. 2: the user's mistake (a message, no trace). 75: not finished, the same
    command may succeed later (a message, no trace). 130: interrupted.

    ``main`` takes options as typed parameters, or one dataclass whose fields are the options (see ``with_options``).
    It may return an int to choose the exit code itself.
    """
    limit_threads()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command(no_args_is_help=False)(with_options(main))
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except NotNowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(NOT_FINISHED)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        # click's usage errors have a method that prints them. Any other exception is our bug and keeps its trace.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code if isinstance(code, int) else 0)


def with_options(main: Callable[..., Any]) -> Callable[..., Any]:
    """The function that typer reads for a ``main(spec)``: it has one parameter for each field of the spec's dataclass.

    A field is annotated as a typer parameter: ``out: Annotated[Path, typer.Option(help="...")] = Path("x")``. Fields
    with ``init=False`` are not options. The dataclass checks its values when it is built (``__post_init__``), so a
    mistake is reported before ``main`` begins. A ``main`` with plain parameters is returned unchanged.
    """
    parameters = list(inspect.signature(main).parameters.values())
    hints = get_type_hints(main, include_extras=True)
    kind = hints.get(parameters[0].name) if len(parameters) == 1 else None
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return main
    options = [field for field in fields(kind) if field.init]
    types = get_type_hints(kind, include_extras=True)

    def command(**values: Any) -> Any:
        for field in options:
            if isinstance(values[field.name], list):
                values[field.name] = tuple(values[field.name])
        return main(kind(**values))

    command.__doc__ = main.__doc__
    command.__annotations__ = {field.name: _annotation(types[field.name]) for field in options}
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=command.__annotations__[field.name],
            )
            for field in options
        ]
    )
    return command


def _annotation(kind: Any) -> Any:
    """The annotation that typer reads. A repeatable option is a tuple in a spec, and a list for typer."""
    if get_origin(kind) is Annotated:
        plain, *extras = get_args(kind)
        return Annotated[(_annotation(plain), *extras)]
    if get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,):
        return list[get_args(kind)[0]]  # type: ignore[misc]
    return kind


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        default = field.default
    elif field.default_factory is not MISSING:
        default = field.default_factory()
    else:
        return inspect.Parameter.empty
    return list(default) if isinstance(default, tuple) else default


def progress(items: Iterable[Item], *, total: int, what: str) -> Iterator[Item]:
    """Yields ``items`` and shows how many of ``total`` are done: a bar on a terminal, plain lines otherwise."""
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
    start = last_line = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last_line >= PLAIN_SECONDS or done == total:
            last_line = now
            left = (now - start) / done * (total - done)
            print(
                f"{what}: {done}/{total}, {now - start:.0f} s gone, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
