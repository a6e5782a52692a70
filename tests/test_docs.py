"""The commands in the pages of docs/ parse: their modules, options, recipes, settings, spaces and backbones exist.

None is run.
"""

import importlib
import re
import shlex
from typing import Any

import pytest
import typer

from glot.cli import with_options
from glot.features.backbones.backbone_kinds import OURS, BackboneChoice
from glot.model_configs import MODELS
from glot.peer_recipes import PEER_RECIPES
from glot.recipes import RECIPES, recipe_named
from glot.scoring.paper_rows import PAPER
from tests.fixtures.places import ROOT
from tuning.spaces import SPACES

BLOCK = re.MULTILINE | re.DOTALL
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("baselines.md", "backbones.md")}
PAGE = PAGES["baselines.md"]


def commands(page: str) -> list[str]:
    """The commands in blocks without a language, and those between backticks."""
    blocks = re.findall(r"^```\n(.*?)^```$", re.sub(r"^```\w+\n.*?^```$", "", page, flags=BLOCK), flags=BLOCK)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("python ")] + re.findall(r"`(python [^`]+)`", page)


def parsed(command: str) -> dict[str, Any]:
    """The values of a command's options. Raises an error of click for an option that does not exist."""
    _, first, *arguments = shlex.split(command)
    module = arguments.pop(0) if first == "-m" else first.removesuffix(".py").replace("/", ".")
    app = typer.Typer(add_completion=False)
    app.command()(with_options(importlib.import_module(module).main))
    return dict(typer.main.get_command(app).make_context(module, arguments).params)


def test_the_pages_have_commands() -> None:
    assert all(len(commands(page)) >= 8 for page in PAGES.values())


@pytest.mark.parametrize("command", [command for page in PAGES.values() for command in commands(page)])
def test_a_command_exists_with_its_options(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # whose files are scripts
    values = parsed(command)
    if values.get("recipe"):
        recipe_named(values["recipe"], values["settings"])
    assert values.get("space", "models") in SPACES
    name = values.get("backbone")
    if isinstance(name, str) and name not in ("colours", "blazepose_maps"):  # which are packages outside
        BackboneChoice(name, values["weights"], values["crop_rule"], values.get("first_guess", False))


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option.*--recipes"):
        parsed("python -m glot.train_ray --recipes open_sample")


def test_every_recipe_is_named_and_no_other() -> None:
    named = set(re.findall(r"--recipe (\w+)", PAGE))
    assert named <= RECIPES.keys() and named >= PEER_RECIPES.keys()
    chosen, described = (
        re.findall(r"--set model=(\w+)", PAGE),
        re.findall(r"^\|.*, 20\d\d \| `(\w+)`", PAGE, re.MULTILINE),
    )
    assert set(chosen) <= set(described) == set(MODELS)


def test_the_papers_errors_are_those_that_evaluation_shows() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if re.match(r"\| [12] \| ", line)]
    recipe, shown = "", {}
    for _, _, train, evaluate, errors in rows:
        recipe = found[1] if (found := re.search(r"--recipe (\w+)", train)) else recipe
        dataset = re.findall(r"--dataset (\w+)", evaluate)[0]
        shown[dataset, recipe] = tuple(errors.removesuffix(" |").split(", "))
    metrics = ("pa_mpjpe", "mpjpe", "mpvpe", "accel")
    expected = {
        key: tuple(f"{row.errors[m]:.1f}" if m in row.errors else "–" for m in metrics)
        for key, row in PAPER.items()
        if row.model != "glot" and row.source == "the paper"
    }
    assert shown == expected


def test_the_table_of_recipes_says_what_they_are() -> None:
    for name, build in PEER_RECIPES.items():
        (line,) = [line for line in PAGE.splitlines() if re.match(rf"\| [`\w, ]*`{name}`", line)]
        _, sets_2d, sets_3d, with_smpl, epochs, stride, seed = line.strip("| ").split(" | ")
        recipe = build()
        assert (tuple(sets_2d.split(", ")), tuple(sets_3d.split(", "))) == (recipe.data.sets_2d, recipe.data.sets_3d)
        used = set(recipe.data.sets_3d) - {*recipe.data.no_smpl, "mpi_inf_3dhp"}  # which has no SMPL parameters
        assert used == set(with_smpl.replace("none", "").split(", ")) - {""}
        assert (int(epochs), int(seed)) == (recipe.epochs, recipe.seed)
        assert recipe.data.stride == int((re.findall(r"\d+", stride) or ["1"])[0])


def test_every_backbone_is_described_with_its_crop_rules() -> None:
    page = PAGES["backbones.md"]
    for kind in OURS:
        name = f"{kind.name}:FILE" if kind.takes_file else kind.name
        assert f"\n| `{name}` |" in page and f"\n## {kind.name}" in page
        assert all(f"| `{rule}`" in page for rule in kind.crop_rules)
        assert all(f"| `{file}` |" in page for file in kind.weights_files if kind.needs_weights)
