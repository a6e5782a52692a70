"""Exit codes and what people read: run as real processes, because that is where they matter."""

import subprocess
import sys
import textwrap

import pytest

from glot.cli import progress, with_options
from tests.fixtures.places import ROOT

HEAVY = {
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "cv2",
    "av",
    "scipy",
    "matplotlib",
    "optuna",
    "onnxruntime",
    "trackforge",
}
COMMANDS = sorted(
    module
    for package in ("glot", "pipelines", "tuning")
    for module in (f"{package}.{path.stem}" for path in (ROOT / package).glob("*.py"))
    if '__name__ == "__main__"' in (ROOT / f"{module.replace('.', '/')}.py").read_text()
)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    body = textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", body, *arguments], capture_output=True, text=True)


COMMAND = """
    from glot import cli
    from glot.errors import InputError

    def main(count: int = 1) -> int:
        '''Counts sheep.'''
        if count == 7:
            raise InputError("--count 7: not a number of sheep; take another")
        if count == 8:
            raise KeyError("bug")
        print("counted", count)
        return 1 if count == 3 else 0

    cli.run(main)
"""


@pytest.mark.parametrize(("count", "code"), [("2", 0), ("3", 1), ("7", 2), ("many", 2)])
def test_exit_codes(count: str, code: int) -> None:
    assert run(COMMAND, "--count", count).returncode == code


def test_a_users_mistake_is_one_line() -> None:
    ended = run(COMMAND, "--count", "7")
    assert ended.stderr == "error: --count 7: not a number of sheep; take another\n"
    assert not ended.stdout


def test_a_bug_keeps_its_trace() -> None:
    ended = run(COMMAND, "--count", "8")
    assert "Traceback" in ended.stderr and ended.returncode not in (0, 2)


def test_help_shows_the_docstring() -> None:
    ended = run(COMMAND, "--help")
    assert ended.returncode == 0 and "Counts sheep" in ended.stdout


def test_progress_passes_everything_on_and_speaks_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(5), total=5, what="sheep")) == [0, 1, 2, 3, 4]
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["sheep: 5/5, 0 s gone, about 0 s left"]


SPEC = """
    from dataclasses import dataclass
    from pathlib import Path
    from typing import Annotated
    import typer
    from glot import cli
    from glot.errors import InputError

    @dataclass(frozen=True, kw_only=True)
    class Flock:
        farm: Annotated[Path, typer.Option(help="Where they are.")] = Path("hill")
        names: Annotated[tuple[str, ...], typer.Option("--name", help="Of a sheep; may be repeated.")] = ()

    @dataclass(frozen=True, kw_only=True)
    class Count(Flock):
        shepherd: Annotated[str, typer.Argument(help="Who counts.")]
        most: Annotated[int, typer.Option(min=1, help="Stop there.")] = 3

        def __post_init__(self):
            if self.most == 7:
                raise InputError("--most 7: not a number of sheep; take another")

    def main(spec: Count) -> int:
        "Counts sheep."
        print(spec)
        return 0

    cli.run(main)
"""


def test_a_dataclass_is_the_options_of_a_command() -> None:
    ended = run(SPEC, "Ann", "--name", "Dolly", "--name", "Molly", "--farm", "moor")
    assert ended.stdout.strip().endswith(
        "Count(farm=PosixPath('moor'), names=('Dolly', 'Molly'), shepherd='Ann', most=3)"
    )
    assert "names=()" in run(SPEC, "Ann").stdout
    helped = run(SPEC, "--help").stdout
    assert all(word in helped for word in ("Counts sheep", "Of a sheep", "--farm", "hill", "shepherd"))


def test_a_dataclass_refuses_wrong_values_before_the_command_begins() -> None:
    ended = run(SPEC, "Ann", "--most", "7")
    assert (ended.returncode, ended.stderr) == (2, "error: --most 7: not a number of sheep; take another\n")
    assert run(SPEC).returncode == run(SPEC, "Ann", "--most", "0").returncode == 2


def test_a_main_of_plain_parameters_is_left_as_it_is() -> None:
    def main(count: int) -> None: ...

    assert with_options(main) is main


def imports_of(*command: str) -> tuple[int, set[str], str]:
    """Exit code of a command, the heavy packages that it imported, and what it printed."""
    ended = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, cwd=ROOT)
    lines = ended.stderr.splitlines()
    packages = {line.rpartition("|")[2].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    shown = [line for line in lines if not line.startswith("import time:")]
    return ended.returncode, packages & HEAVY, "\n".join([ended.stdout, *shown])


@pytest.mark.parametrize("module", COMMANDS)
def test_help_comes_without_the_heavy_libraries(module: str) -> None:
    code, heavy, shown = imports_of("-m", module, "--help")
    assert (code, heavy) == (0, set()), shown
    assert "Usage:" in shown


@pytest.mark.parametrize("module", COMMANDS)
def test_so_do_mistakes_in_the_options(module: str) -> None:
    code, heavy, shown = imports_of("-m", module, "--no-such-option")
    assert (code, heavy) == (2, set()), shown
    assert "--no-such-option" in shown
