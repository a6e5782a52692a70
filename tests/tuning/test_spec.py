"""A sweep's spec: its defaults, and mistakes that are named before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.training.record.mlflow_store import default_uri
from tuning.spec import ReportSpec, SearchSpec


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resume": True, "fresh": True}, "--resume --fresh"),
        ({"seeds": 0}, "--seeds 0: must be 1 or more"),
        ({"concurrent": -1}, "--concurrent -1"),
        ({"gpus_per_trial": 1.5}, "--gpus-per-trial 1.5: give a fraction of one GPU, or a whole number"),
        ({"gpus_per_trial": 0.5, "workers_per_trial": 2}, "--workers-per-trial 2: is for CPUs"),
        ({"mlflow": "none"}, "--mlflow none: a sweep needs a store"),
        ({"out": Path(__file__)}, "is a file; give a folder"),
        ({"settings": ("epochs=many",)}, "epochs=many"),
        ({"settings": ("model.mask_ratio=0.3",)}, "--set model.mask_ratio=0.3: the sweep varies this field"),
        (
            {"space": "windows", "settings": ("model.positions=sine", "model.frames=16")},
            "--set model.frames=16: the sweep varies this field",
        ),
        ({"settings": ("data.batch_size=0",)}, "^data.batch_size=0: must be a whole number, 1 or more"),
        ({"settings": ("model.heads=3",)}, "the sweep's point mask_ratio=0: model.width=512: must be a multiple"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        SearchSpec(**options)


@pytest.mark.parametrize("name", ["home", "100%20 #1?a"])
def test_defaults_are_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tmp_path /= name
    tmp_path.mkdir()
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    spec = SearchSpec(space="positions")
    assert spec.features == tmp_path / "features" and spec.sweep_folder == tmp_path / "runs" / "positions"
    assert spec.tracking_uri == default_uri(tmp_path / "runs")
    with pytest.raises(InputError, match="features/3dpw/train and .*validation: no finished feature set"):
        spec.check_places()
    with pytest.raises(InputError, match=r"--mlflow sqlite:.*: there is no such file"):
        ReportSpec()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").touch()
    assert ReportSpec().out == tmp_path / "runs" / "report"


def test_workers_of_a_trial() -> None:
    assert SearchSpec().workers == SearchSpec(gpus_per_trial=0.5).workers == SearchSpec(gpus_per_trial=1).workers == 1
    assert SearchSpec(gpus_per_trial=2).workers == SearchSpec(workers_per_trial=2).workers == 2


def space(tmp_path: Path, axes: str) -> str:
    (tmp_path / "mine.yaml").write_text(f"axes: [{axes}]")
    return str(tmp_path / "mine.yaml")


def test_every_corner_of_a_grid_is_checked(tmp_path: Path) -> None:
    """Each value makes a recipe with the first value of the other field; one combination does not."""
    axes = "{field: model.frames, values: [16, 8]}, {field: model.nearby_frames, values: [2, 3, 5]}"
    named = r"point frames=8, nearby_frames=5: model.nearby_frames=5: must be 1 to 3 in windows of model.frames=8"
    with pytest.raises(InputError, match=named):
        SearchSpec(space=space(tmp_path, axes))
    # Settings count together with the point: ten nearby frames are too many for the recipe's own windows of 16.
    longer = space(tmp_path, "{field: model.frames, values: [24, 32]}")
    assert SearchSpec(space=longer, settings=("model.nearby_frames=10",)).chosen_recipe.model.frames == 24
    # A search draws some of the points, and those that make no recipe end as failed.
    assert SearchSpec(space=space(tmp_path, axes), search="random", trials=3).trials == 3
    with pytest.raises(InputError, match="lr=-0.1: must be above 0"):
        SearchSpec(space=space(tmp_path, "{field: lr, low: -0.1, high: 1}"), search="random", trials=3)
    with pytest.raises(InputError, match="model.depth=0: must be a whole number, 1 or more"):
        SearchSpec(space=space(tmp_path, "{field: model.depth, values: [0, 1]}"), search="random", trials=3)


def test_the_seeds_of_a_point(tmp_path: Path) -> None:
    assert SearchSpec(seeds=3).seeds_of({}) == (1, 2, 3)
    assert SearchSpec(seeds=2, settings=("seed=7",)).seeds_of({}) == (7, 8)
    varied = space(tmp_path, "{field: seed, values: [3, 5]}")
    assert SearchSpec(space=varied).seeds_of({"seed": 5}) == (5,)
    with pytest.raises(InputError, match="--seeds 2: the sweep varies the seed"):
        SearchSpec(space=varied, seeds=2)
    with pytest.raises(InputError, match="--set seed=7: the sweep varies this field"):
        SearchSpec(space=varied, settings=("seed=7",))


def test_every_choice_of_data_in_a_grid_has_to_be_there(tmp_path: Path) -> None:
    sets = space(tmp_path, "{field: data.sets_3d, values: [3dpw, human36m]}")
    spec = SearchSpec(features=tmp_path, space=sets)
    assert [spec.recipe_at(point).data.sets_3d for point in spec.points_to_check()] == [("3dpw",), ("human36m",)]
    assert SearchSpec(features=tmp_path, settings=("epochs=1",)).points_to_check() == [{"model.mask_ratio": 0.875}]


def test_every_model_of_a_grid_is_built_before_the_first_trial(tmp_path: Path) -> None:
    spec = SearchSpec(features=tmp_path, space="models", settings=("model.frames=16",))
    assert [point["model"] for point in spec.points_to_check()] == ["vibe", "meva", "tcmr", "mps_net", "glot"]
    assert {spec.recipe_at(point).model.frames for point in spec.points_to_check()} == {16}
    with pytest.raises(InputError, match=r"point model=vibe: .*there is no field 'mask_ratio'"):
        SearchSpec(features=tmp_path, space="models", settings=("model.mask_ratio=0.25",))
    with pytest.raises(InputError, match="point model=vibe: whiten=1: only input layers of glot .* set whiten=0"):
        SearchSpec(features=tmp_path, space="models", recipe="open_start")
    with pytest.raises(InputError, match="must be one of glot, tcmr"):
        SearchSpec(features=tmp_path, space="models", values="tcmr,spin")
    assert len(SearchSpec(features=tmp_path, space="models", search="random", trials=3).points_to_check()) == 1
