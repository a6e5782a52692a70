"""Recipes by name: what a published row was trained with, and what the models of the open stack were trained with.

Those of the models that GLoT is measured against are in glot.peer_recipes.
"""

from collections.abc import Sequence
from dataclasses import replace

from glot.config import DataConfig, Recipe
from glot.errors import InputError
from glot.model_configs import GLoTConfig
from glot.peer_recipes import PEER_RECIPES
from glot.settings import with_settings


def table1_3dpw() -> Recipe:
    """Table 1, 3DPW: InstaVariety | 3DPW, MPI-INF-3DHP, Human3.6M (whose SMPL fits are not used)."""
    data = DataConfig(
        sets_2d=("insta_variety",),
        sets_3d=("3dpw", "mpi_inf_3dhp", "human36m"),
        no_smpl=("human36m",),
        validation=("3dpw",),
    )
    return Recipe("table1_3dpw", data=data)


def table1_h36m_mpii3d() -> Recipe:
    """Table 1, Human3.6M and MPI-INF-3DHP."""
    base = table1_3dpw()
    return replace(
        base,
        name="table1_h36m_mpii3d",
        data=replace(base.data, no_smpl=()),
        loss=replace(base.loss, keypoints2d=100.0, joints3d=150.0),
        epochs=75,
        weight_decay=1e-5,
        warmup_epochs=8,
        first_eval_epoch=30,
    )


def table2_3dpw() -> Recipe:
    """Table 2: evaluated on 3DPW, which is not among the training sets."""
    base = table1_h36m_mpii3d()
    return replace(
        base,
        name="table2_3dpw",
        data=replace(base.data, sets_3d=("mpi_inf_3dhp", "human36m")),
        loss=replace(base.loss, keypoints2d=100.0, joints3d=200.0),
        epochs=80,
        steps_per_epoch=500,
        first_eval_epoch=20,
    )


def open_start() -> Recipe:
    """How the shipped open model was trained: from random weights, on thousands of rendered people."""
    return Recipe(
        "open_start",
        model=GLoTConfig(regressor_dropout=0.2),
        data=DataConfig(batch_size=32, stride=1),
        epochs=40,
        steps_per_epoch=100,
        lr=3e-4,
        weight_decay=1e-5,
        warmup_epochs=5,
        first_eval_epoch=20,  # evaluating a validation split of 4,000 frames takes as long as 60 steps
        whiten=1.0,
        precision="bfloat16",
    )


def open_video() -> Recipe:
    """How the shipped model for real videos was trained, on BlazePose's features; half as wide as the paper's model."""
    base = open_start()
    assert isinstance(base.model, GLoTConfig)
    model = replace(base.model, width=256, decoder_width=256, local_width=256, mlp_ratio=2, hidden=512, drop_path=0.1)
    return replace(
        base,
        name="open_video",
        model=model,
        data=replace(base.data, feature_noise=0.03),  # 4 px of the crop, 8 mm: BlazePose's error on real people
        epochs=60,
        lr=4e-4,
        warmup_epochs=3,
        first_eval_epoch=20,
    )


def open_sample() -> Recipe:
    """For the rendered sample, which has 3DPW's layout: minutes on two CPU cores. Not comparable with the paper."""
    return Recipe(
        "open_sample",
        data=DataConfig(batch_size=32, stride=1),
        epochs=12,
        steps_per_epoch=40,
        lr=3e-4,
        weight_decay=1e-5,
        warmup_epochs=2,
        first_eval_epoch=0,
    )


OWN_RECIPES = {
    recipe.__name__: recipe
    for recipe in (open_sample, open_start, open_video, table1_3dpw, table1_h36m_mpii3d, table2_3dpw)
}
RECIPES = OWN_RECIPES | PEER_RECIPES
# For --help. The message about an unknown recipe has all names.
_FIRST_ROWS = [name for name in PEER_RECIPES if name.endswith("_table1_3dpw")]
RECIPES_IN_SHORT = (
    f"{', '.join(OWN_RECIPES)}; rows of other models: {', '.join(_FIRST_ROWS)} and "
    f"{len(PEER_RECIPES) - len(_FIRST_ROWS)} more in docs/baselines.md"
)
OPEN_RECIPES = ("open_sample", "open_start", "open_video")  # train on rendered people, which everybody can make
BLAZEPOSE_RECIPES = ("open_video",)  # for features of BlazePose; the other recipes are for features of a ResNet-50


def recipe_named(name: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe called ``name`` with settings applied, e.g. ``model.mask_ratio=0.25`` or ``epochs=3``.

    Raises InputError for an unknown recipe or field, and for a value that the field does not take.
    """
    if name not in RECIPES:
        raise InputError(f"--recipe {name}: there is no such recipe; choose one of {', '.join(RECIPES)}")
    if named := [setting for setting in settings if setting.partition("=")[0] == "name"]:
        raise InputError(f"--set {named[0]}: the name of a recipe is not a setting; choose a recipe with --recipe")
    return with_settings(RECIPES[name](), settings)
