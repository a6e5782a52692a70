"""Workers share the validation sets, and find the errors that one worker finds, to the last digit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glot.config import Recipe
from glot.errors import InputError
from glot.features.layout import Track
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.recipes import recipe_named
from glot.scoring.evaluation import evaluate_split
from glot.scoring.validation import Validation, shares
from glot.training.feature_sets import validation_folders
from glot.training.loop import first_model
from tests.fixtures.features import write_feature_set
from tests.fixtures.worker_processes import in_workers

SETTINGS = (
    "model.feature_size=32", "model.width=32", "model.decoder_width=16", "model.local_width=16", "model.hidden=32",
    "model.heads=2", "data.validation=3dpw,mpi_inf_3dhp", "first_eval_epoch=0", "epochs=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, body = tmp_path_factory.mktemp("features"), load_body()
    for seed, name in enumerate(("3dpw", "mpi_inf_3dhp")):
        tracks = [40, 17, 8, 29, 61, 33]  # the third one is shorter than a window
        write_feature_set(
            root / name / "validation", tracks=tracks, body=body, seed=seed, dataset=name, gap=4, invalid=0.05
        )
    return root


def errors(rank: int, world: int, features: Path, recipe: Recipe) -> tuple[dict[str, float], int]:
    """What the workers find with the model that a run starts with, and how many tracks this one takes."""
    torch.set_num_threads(1)
    body = load_body()
    validation = Validation(recipe, validation_folders(recipe, features), body, rank=rank, world=world)
    return validation(first_model(recipe, body), 1), sum(map(len, validation.mine.values()))


@pytest.mark.parametrize("world", [2, 3])
def test_workers_find_the_errors_of_one_worker_to_the_last_digit(features: Path, tmp_path: Path, world: int) -> None:
    recipe = recipe_named("open_sample", SETTINGS)
    threads = torch.get_num_threads()
    alone, _ = errors(0, 1, features, recipe)
    torch.set_num_threads(threads)
    assert alone.keys() >= {"val_pa_mpjpe", "val_mpvpe", "val_accel", "val_mpi_inf_3dhp_pa_mpjpe"}
    found: list[Any] = in_workers(world, tmp_path / "meeting", errors, features, recipe)
    assert [values for values, _ in found] == [alone] * world
    assert sum(tracks for _, tracks in found) == 12 and all(tracks for _, tracks in found)


def test_a_set_without_smpl_has_all_errors_but_those_of_vertices(features: Path) -> None:
    recipe = recipe_named("open_sample", [*SETTINGS, "data.validation=mpi_inf_3dhp"])
    found, _ = errors(0, 1, features, recipe)
    assert found.keys() == {"val_pa_mpjpe", "val_mpjpe", "val_accel"}


def test_epochs_before_the_first_one_are_not_evaluated_and_the_last_one_is(features: Path) -> None:
    recipe, body = recipe_named("open_sample", [*SETTINGS, "first_eval_epoch=1"]), load_body()
    model = first_model(recipe, body)
    evaluated = [
        bool(Validation(recipe, validation_folders(recipe, features), body, rank=0, world=1)(model, epoch))
        for epoch in (1, 2, 3)
    ]
    assert evaluated == [False, True, True]
    late = replace(recipe, first_eval_epoch=25)
    assert Validation(late, validation_folders(late, features), body, rank=0, world=1)(model, 3)


def test_a_set_with_nothing_to_compare_with_is_refused_before_training(tmp_path: Path) -> None:
    body = load_body()
    write_feature_set(tmp_path / "3dpw" / "validation", tracks=[40, 30], body=body, invalid=1.0)
    recipe = recipe_named("open_sample", [*SETTINGS, "data.validation=3dpw"])
    with pytest.raises(InputError, match="3dpw/validation: none of its 2 tracks has ground truth and the 16 frames"):
        Validation(recipe, validation_folders(recipe, tmp_path), body, rank=0, world=1)


def test_shares_are_about_equal_and_hold_every_track_once() -> None:
    lengths = np.random.default_rng(0).integers(20, 2000, 50)
    stops = np.cumsum(lengths)
    tracks = [Track(f"t{i}", int(stop - n), int(stop)) for i, (n, stop) in enumerate(zip(lengths, stops, strict=True))]
    for world in (1, 3, 8):
        given = shares(tracks, world)
        assert sorted(track for share in given for track in share) == sorted(tracks)
        frames = [sum(track.stop - track.start for track in share) for share in given]
        assert max(frames) < 1.1 * sum(frames) / world
    assert [len(share) for share in shares(tracks[:2], 4)] == [1, 1, 0, 0]


def test_shared_scores_are_averaged_in_the_order_of_the_tracks(features: Path) -> None:
    """Whatever worker scored a track, and whatever came first."""
    body, recipe = load_body(), recipe_named("open_sample", SETTINGS)
    store, model = FeatureStore.open(features / "3dpw" / "validation"), first_model(recipe, load_body())
    whole = evaluate_split(model, store, body, vertices=True)
    assert whole.skipped_tracks
    turned = evaluate_split(
        model,
        store,
        body,
        vertices=True,
        tracks=store.tracks[::-1],
        together=lambda scores: dict(reversed(scores.items())),
    )
    assert turned == whole
