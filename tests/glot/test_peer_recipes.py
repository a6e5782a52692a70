"""Recipes of the other models: the shares of a batch, the published differences, and sets that can be extracted."""

import pytest

from glot.config import Recipe
from glot.model_configs import MEVAConfig
from glot.peer_recipes import PEER_RECIPES
from glot.recipes import RECIPES, RECIPES_IN_SHORT
from glot.training.batch_split import windows_of_kinds
from pipelines.decoders.registry import DATASETS

EVERY = pytest.mark.parametrize("recipe", [build() for build in PEER_RECIPES.values()], ids=lambda r: r.name)


@EVERY
def test_a_step_is_the_one_that_all_four_releases_take(recipe: Recipe) -> None:
    assert windows_of_kinds(recipe.data) == (19, 13)
    assert recipe.loss.velocity2d == recipe.loss.velocity3d == 0
    assert (recipe.loss.keypoints2d, recipe.loss.joints3d, recipe.loss.pose, recipe.loss.shape) == (300, 300, 60, 0.06)
    assert (recipe.lr, recipe.schedule, recipe.patience, recipe.steps_per_epoch) == (5e-5, "plateau", 5, 500)
    assert recipe.weight_decay == recipe.warmup_epochs == recipe.first_eval_epoch == 0
    assert RECIPES[recipe.name]() == recipe


@EVERY
def test_every_set_has_a_decoder(recipe: Recipe) -> None:
    data = recipe.data
    for name in (*data.sets_2d, *data.sets_3d):
        assert "train" in DATASETS[name].splits
    assert all("validation" in DATASETS[name].splits for name in data.validation)
    assert set(data.no_smpl) <= set(data.sets_3d)


@EVERY
def test_a_model_has_the_discriminator_and_the_frames_of_its_release(recipe: Recipe) -> None:
    kind = recipe.model.kind
    assert recipe.name.startswith(f"{kind}_")
    assert recipe.discriminator.motions == (("amass",) if kind in ("vibe", "mps_net") else ())
    assert recipe.model.frames == (90 if kind == "meva" else 16)
    assert recipe.seed == (2 if kind == "meva" else 1)
    # Only the rows of Table 2, and those of TCMR's Table 6, leave 3DPW out.
    assert ("3dpw" in recipe.data.sets_3d) == ("table2" not in recipe.name and "table6" not in recipe.name)


def test_windows_start_where_the_releases_start_them() -> None:
    def stride(name: str, dataset: str) -> int:
        data = PEER_RECIPES[name]().data
        return data.stride_of.get(dataset, data.stride)

    assert stride("tcmr_table1_3dpw", "human36m") == stride("tcmr_table1_h36m_mpii3d", "posetrack") == 1
    assert stride("tcmr_table2_3dpw", "human36m") == stride("mps_net_table1_3dpw", "3dpw") == 16
    sets = ("insta_variety", "mpi_inf_3dhp", "human36m", "3dpw", "penn_action")
    assert [stride("meva_published", name) for name in sets] == [90, 90, 45, 22, 22]


def test_smpl_parameters_of_human36m_are_used_where_the_release_uses_them() -> None:
    unused = {name for name, build in PEER_RECIPES.items() if "human36m" in build().data.no_smpl}
    assert unused == {"tcmr_table1_3dpw", "vibe_table1_3dpw"} | {n for n in PEER_RECIPES if n.startswith("mps_net")}


def test_the_variants_of_meva_differ_in_nothing_else() -> None:
    paper, published = PEER_RECIPES["meva_table1_3dpw"](), PEER_RECIPES["meva_published"]()
    assert paper.data == published.data and paper.epochs == published.epochs == 100
    assert paper.model == MEVAConfig(variant="with_first_pose") and published.model == MEVAConfig()


def test_help_names_a_recipe_of_each_model_and_counts_the_others() -> None:
    named = [name for name in RECIPES if name in RECIPES_IN_SHORT.replace(";", ",").replace(" ", ",").split(",")]
    assert {RECIPES[name]().model.kind for name in named} == {"glot", "tcmr", "mps_net", "vibe", "meva"}
    assert f" {len(RECIPES) - len(named)} more" in RECIPES_IN_SHORT
