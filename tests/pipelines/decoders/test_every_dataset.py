"""Each dataset in its own files, extracted by real Ray, checked, windowed, and one training step taken on it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from glot.config import DataConfig
from glot.features.schema import read_manifest
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.models.losses import glot_loss
from glot.recipes import recipe_named
from glot.training.loop import first_model
from glot.training.sampler import Sampler
from pipelines import check_features
from pipelines.checks.spec import CheckSpec
from pipelines.decoders.registry import DATASETS
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
from tests.fixtures import human36m, insta_variety, penn_action, posetrack
from tests.fixtures import mpi_inf_3dhp as mpi_inf_3dhp_fixture
from tests.fixtures.threedpw import write_sequence

SMALL = ["model.width=32", "model.decoder_width=16", "model.local_width=16", "model.hidden=32", "model.heads=2"]
ONLY_2D = {"insta_variety", "penn_action", "posetrack"}


def threedpw(root: Path) -> None:
    for split in ("train", "validation", "test"):
        for seed in range(2):
            write_sequence(root, f"{split}_{seed:02d}", split=split, frames=32, people=1, seed=seed)


def mpi_inf_3dhp(root: Path) -> None:
    mpi_inf_3dhp_fixture.write_dataset(root, cameras=(0,))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "3dpw": threedpw,
    "human36m": human36m.write_dataset,
    "insta_variety": partial(insta_variety.write_dataset, frames=17),
    "mpi_inf_3dhp": mpi_inf_3dhp,
    "penn_action": penn_action.write_dataset,
    "posetrack": posetrack.write_dataset,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("every_dataset")


def extract(name: str, root: Path) -> Path:
    """The folder of feature sets of dataset ``name``, made once."""
    features = root / "features"
    if not (features / name).is_dir():
        WRITERS[name](root / name)
        skips = name == "mpi_inf_3dhp"  # the files of seven of its eight cameras are missing
        spec = ExtractSpec(dataset=name, root=root / name, out=features, workers=1, allow_skips=skips)
        assert main(spec) == 0
    return features


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"video"}))  # "video" has no labels
def test_from_files_to_a_training_step(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = extract(name, root)
    assert check_features.main(CheckSpec(folder=features / name)) == 0, capsys.readouterr().out
    for split in DATASETS[name].splits:
        manifest = read_manifest(features / name / split)
        assert manifest.tracks >= 2 and manifest.rows >= 16 * manifest.tracks and manifest.dataset == name

    only_3d = (name,) if name not in ONLY_2D else ("3dpw",)
    only_2d = (name,) if name in ONLY_2D else ()
    if only_3d == ("3dpw",):
        extract("3dpw", root)
    stores = {each: FeatureStore.open(features / each / "train", cache=root / "cache") for each in (*only_2d, *only_3d)}
    data = DataConfig(sets_2d=only_2d, sets_3d=only_3d, batch_size=5, stride=1)
    recipe = replace(recipe_named("open_sample", SMALL), data=data)
    sampler = Sampler(stores, data, frames=recipe.model.frames, seed=1, rank=0, world=1)
    windows, targets, _ = sampler.batch(0)
    assert windows.shape == (5, 16, 2048) and targets.is_3d.sum() == (2 if only_2d else 5)
    body = load_body()
    model = first_model(recipe, body).train()
    loss, terms = glot_loss(model(windows), targets, body=body, config=recipe.loss)
    loss.backward()
    assert loss.isfinite() and float(terms["local/keypoints2d"]) > 0
    # MPI-INF-3DHP has no SMPL fits; in the 2D sets only the 3DPW windows have any.
    assert (float(terms["local/pose"]) > 0) == (name != "mpi_inf_3dhp")
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert torch.isfinite(windows).all()
