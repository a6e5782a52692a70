"""Recipes: they survive storage, take settings, and refuse values that cannot be right."""

import pytest

from glot.config import RECIPES, ModelConfig, flat, from_dict, recipe_named, to_dict
from glot.errors import InputError


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_being_stored(name: str) -> None:
    recipe = recipe_named(name)
    assert recipe.name == name
    assert from_dict(to_dict(recipe)) == recipe


def test_settings_reach_their_field_and_nothing_else() -> None:
    base, changed = recipe_named("table1_3dpw"), recipe_named("table1_3dpw", ["model.mask_ratio=0.25", "epochs=3"])
    differing = {key for key, value in flat(base).items() if flat(changed)[key] != value}
    assert differing == {"model.mask_ratio", "epochs"}
    assert changed.model.mask_ratio == 0.25 and changed.epochs == 3


def test_settings_parse_every_kind_of_field() -> None:
    recipe = recipe_named("open_sample", ["loss.use_accel=true", "data.sets_2d=a,b", "model.regressor=residual"])
    assert recipe.loss.use_accel is True
    assert recipe.data.sets_2d == ("a", "b")
    assert recipe.model.regressor == "residual"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.mask_rato=0.2", "mask_rato"),
        ("model=3", "section"),
        ("epochs", "field=value"),
        ("epochs=many", "many"),
        ("model.mask_ratio=1.0", "mask_ratio"),
        ("model.frames=15", "frames"),
        ("model.nearby_frames=8", "nearby_frames"),
        ("model.regressor=magic", "magic"),
        ("epochs.more=1", "more"),
    ],
)
def test_wrong_settings_are_named(setting: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        recipe_named("open_sample", [setting])


def test_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(InputError, match="table2_3dpw"):
        recipe_named("table3")


def test_a_config_of_another_version_is_refused() -> None:
    stored = to_dict(recipe_named("open_sample"))
    stored["model"]["brand_new_field"] = 1
    with pytest.raises(InputError, match="brand_new_field"):
        from_dict(stored)
    del stored["model"]["brand_new_field"], stored["model"]["width"]
    with pytest.raises(InputError, match="width"):
        from_dict(stored)


def test_paper_recipes_differ_where_the_official_configs_do() -> None:
    one, both, two = (recipe_named(n) for n in ("table1_3dpw", "table1_h36m_mpii3d", "table2_3dpw"))
    assert (one.loss.keypoints2d, both.loss.keypoints2d, two.loss.keypoints2d) == (300, 100, 100)
    assert "3dpw" not in two.data.sets_3d and "3dpw" in one.data.sets_3d
    assert one.data.no_smpl == ("human36m",) and not two.data.no_smpl


def test_mask_ratio_must_leave_a_frame() -> None:
    with pytest.raises(InputError, match="leaves none"):
        ModelConfig(frames=4, nearby_frames=1, mask_ratio=0.9)
