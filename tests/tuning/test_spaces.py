"""Spaces of the paper's tables, whose points are valid recipes, and spaces in users' files."""

from pathlib import Path

import pytest

from glot.errors import InputError
from glot.model_configs import MODELS
from glot.recipes import recipe_named
from glot.scoring.paper_rows import paper_row
from tuning.spaces import BASE, SPACES, Axis, Space, parsed, settings_of, space_named, with_values
from tuning.spec import SearchSpec


@pytest.mark.parametrize("name", [name for name in SPACES if name != "joint"])
def test_every_point_of_the_papers_tables_is_a_recipe(name: str) -> None:
    space = SPACES[name]
    points = space.grid()
    recipes = {recipe_named("table1_3dpw", settings_of(point)).model for point in points}
    assert len(recipes) == len(points)
    published = recipe_named("table1_3dpw").model
    assert published in recipes  # the paper's own choice is one of them, with the errors of its Table 1
    (own,) = [p for p in points if recipe_named("table1_3dpw", settings_of(p)).model == published]
    assert space.row(own) == BASE
    if len(space.axes) == 1:
        assert all(space.row(point) for point in points)


def test_the_models_have_the_errors_of_table_1_where_it_has_some() -> None:
    models = SPACES["models"]
    for (model,), errors in models.paper.items():
        row = paper_row("3dpw", "table1_3dpw", str(model))
        assert row is not None and row.errors == {k: v for k, v in errors._asdict().items() if v is not None}
    assert [model for (model,), errors in models.paper.items() if errors.mpvpe is None] == ["vibe", "meva"]
    assert {point["model"] for point in models.grid()} == set(MODELS)


def test_values_come_back_from_the_text_that_mlflow_keeps() -> None:
    for value in (0.125, 1e-05, 16, True, False, "smpl", "gmm+lpc"):
        assert parsed(str(value)) == value and type(parsed(str(value))) is type(value)


def test_other_values_have_the_type_of_the_field() -> None:
    (point,) = with_values(SPACES["mask_ratio"], "0").grid()
    assert repr(point["model.mask_ratio"]) == "0.0"
    assert repr(with_values(SPACES["nearby_frames"], "3").grid()) == "[{'model.nearby_frames': 3}]"


def test_a_yaml_file_is_a_space(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "axes:\n- {field: model.dropout, values: [0, 0.1]}\n- {field: lr, low: 1e-5, high: 1e-3, log: true}\n"
    )
    space = space_named(str(file))
    assert space == Space("mine", (Axis("model.dropout", (0.0, 0.1)), Axis("lr", low=1e-5, high=1e-3, log=True)))
    with pytest.raises(InputError, match="--search random or bayesian"):
        space.grid()


@pytest.mark.parametrize(
    "text",
    ["axes: 3", "values: [1]", "axes: []", "axes:\n- {field: lr}", "axes:\n- {field: lr, colour: red}", "a: [", "- 1"]
    + ["axes:\n- {field: lr, values: [1], low: 0, high: 1}", "axes:\n- {field: lr, low: 0, high: 1, log: true}"]
    + ["axes:\n- {field: lr, values: 3}", "axes:\n- {field: lr, low: 2, high: 1}", "", "axes: [{values: [1]}]"],
)
def test_a_wrong_yaml_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(InputError):
        space_named(str(tmp_path / "wrong.yaml"))


def test_a_python_file_is_a_space(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from tuning.spaces import Axis, Space\nSPACE = Space('mine', (Axis('model.heads', (4, 8)),))\n")
    assert space_named(str(file)).grid() == [{"model.heads": 4}, {"model.heads": 8}]
    file.write_text("SPACE = 3")
    with pytest.raises(InputError, match="set SPACE"):
        space_named(str(file))


def test_a_space_that_cannot_be_searched_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of models, modules, mask_ratio"):
        space_named("colour")
    with pytest.raises(InputError, match="no such file"):
        space_named("nowhere.yaml")
    with pytest.raises(InputError, match="varies 2 fields"):
        with_values(SPACES["windows"], "1,2")
    with pytest.raises(InputError, match="must be 0 or more and below 1"):
        SearchSpec(values="0.5,1.5")
    mine = tmp_path / "mine.yaml"
    mine.write_text("axes: [{field: model.colour, values: [1]}]")
    with pytest.raises(InputError, match="no field 'colour'"):
        SearchSpec(space=str(mine))
    with pytest.raises(InputError, match="--trials"):
        SearchSpec(space="joint", search="bayesian")
    with pytest.raises(InputError, match="all of its 15 points"):
        SearchSpec(space="windows", trials=4)
    with pytest.raises(InputError, match="--search hill"):
        SearchSpec(space="windows", search="hill", trials=4)
