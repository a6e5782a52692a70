"""Recipes: they survive storage, take settings, and refuse values that cannot be right."""

import pytest

from glot.config import flat, from_dict, to_dict
from glot.errors import InputError
from glot.model_configs import GLoTConfig
from glot.recipes import RECIPES, recipe_named


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
        ("loss=3", "section"),
        ("model=3", "one of glot, tcmr"),
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


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_settings_does_not_matter(order: int) -> None:
    settings = ["model.frames=8", "model.nearby_frames=2", "model.heads=3", "model.width=30", "model.decoder_width=12"]
    recipe = recipe_named("open_sample", [*settings, "model.local_width=6"][::order])
    assert (recipe.model.frames, recipe.model.nearby_frames, recipe.model.width) == (8, 2, 30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.heads=3"], r"model\.width=512: must be a multiple of model\.heads=3"),
        (["model.frames=8"], r"model\.nearby_frames=4: must be 1 to 3 in windows of model\.frames=8"),
        (
            ["model.positions=sine", "model.heads=1", "model.local_width=5"],
            r"local_width=5: must be even with model\.positions=sine",
        ),
        (["data.sets_2d=a", "data.batch_size=1"], r"fraction_2d=0\.6: leaves 2D sets no window of data\.batch_size=1"),
        (["name=other"], "--set name=other: the name of a recipe is not a setting"),
    ],
)
def test_values_that_do_not_fit_together_are_named(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe_named("open_sample", settings)


def test_a_stored_recipe_is_read_if_this_program_knows_all_of_it() -> None:
    recipe = recipe_named("open_sample", ["model.width=128", "lr=0.5"])
    older = to_dict(recipe)
    del older["model"]["dropout"], older["precision"], older["loss"]
    assert from_dict(older) == recipe
    newer = to_dict(recipe)
    newer["model"]["brand_new_field"] = 1
    with pytest.raises(
        InputError, match=r"recipe\.model: this program does not know brand_new_field; .* newer version"
    ):
        from_dict(newer)
    with pytest.raises(InputError, match="has schema 7, this program knows schemas up to 1"):
        from_dict(to_dict(recipe), schema=7)


def test_paper_recipes_differ_where_the_official_configs_do() -> None:
    one, both, two = (recipe_named(n) for n in ("table1_3dpw", "table1_h36m_mpii3d", "table2_3dpw"))
    assert (one.loss.keypoints2d, both.loss.keypoints2d, two.loss.keypoints2d) == (300, 100, 100)
    assert "3dpw" not in two.data.sets_3d and "3dpw" in one.data.sets_3d
    assert one.data.no_smpl == ("human36m",) and not two.data.no_smpl


def test_mask_ratio_must_leave_a_frame() -> None:
    with pytest.raises(InputError, match="leaves none"):
        GLoTConfig(frames=4, nearby_frames=1, mask_ratio=0.9)
