"""The batches of a run do not depend on the number of workers, and can be read from any step on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glot.config import DataConfig, LossConfig
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.models.glot import GLoTOutput
from glot.models.losses import glot_loss
from glot.models.smpl_params import SMPLParams
from glot.training.sampler import Batch, Sampler, Stream
from tests.fixtures.features import write_feature_set

FRAMES = 8
BOTH = DataConfig(sets_2d=("flat",), sets_3d=("one", "two"), no_smpl=("two",), batch_size=20, fraction_2d=0.6, stride=2)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureStore]:
    root = tmp_path_factory.mktemp("features")
    shapes = {"flat": [30, 24], "one": [40, 17], "two": [26]}
    for seed, (name, tracks) in enumerate(shapes.items()):
        write_feature_set(root / name, tracks=tracks, feature_size=8, seed=seed, dataset=name, invalid=0.2)
    return {name: FeatureStore.open(root / name) for name in shapes}


def sampler(stores: dict[str, FeatureStore], rank: int = 0, world: int = 1, seed: int = 3) -> Sampler:
    return Sampler(stores, BOTH, frames=FRAMES, seed=seed, rank=rank, world=world)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_a_batch_without_overlap(stores: dict[str, FeatureStore], world: int) -> None:
    for step in (0, 7, 31):
        whole = sampler(stores).batch(step).features
        shares = torch.cat([sampler(stores, rank, world).batch(step)[0] for rank in range(world)])

        def rows(features: torch.Tensor) -> list[tuple[float, ...]]:
            return sorted(map(tuple, features[:, 0].tolist()))

        assert rows(shares) == rows(whole)


@pytest.mark.parametrize("world", [2, 4])
def test_a_window_hides_the_same_frames_on_every_rank(stores: dict[str, FeatureStore], world: int) -> None:
    def noise_of(batches: list[Batch]) -> dict[tuple[float, ...], list[float]]:
        """The mask noise of each window, by its features."""
        return {
            tuple(window.flatten().tolist()): noise.tolist()
            for batch in batches
            for window, noise in zip(batch.features, batch.mask_noise, strict=True)
        }

    whole = noise_of([sampler(stores).batch(5)])
    assert noise_of([sampler(stores, rank, world).batch(5) for rank in range(world)]) == whole
    values = np.array(list(whole.values()))
    assert values.min() >= 0 and values.max() < 1 and len(np.unique(values)) == values.size
    other = noise_of([sampler(stores).batch(6)])
    assert all(whole[window] != other[window] for window in whole.keys() & other.keys())


def test_sets_are_mixed_as_the_recipe_says(stores: dict[str, FeatureStore]) -> None:
    targets = sampler(stores).batch(0).targets
    assert targets.is_3d.tolist() == [False] * 12 + [True] * 8  # int(20 * 0.6) windows of 2D sets come first
    assert not targets.w_3d[:12].any() and not targets.w_smpl[:12].any()
    assert targets.w_3d[12:].any()


def test_a_set_may_have_a_stride_of_its_own(stores: dict[str, FeatureStore]) -> None:
    own = replace(BOTH, strides=("one:5",))
    windows = Sampler(stores, own, frames=FRAMES, seed=0).windows
    # flat: 30 and 24 frames, two: 26, a window every 2 frames; one: 40 and 17 frames, a window every 5.
    assert windows == (22 // 2 + 1) + (16 // 2 + 1) + (18 // 2 + 1) + (32 // 5 + 1) + (9 // 5 + 1)
    assert windows < sampler(stores).windows


def test_invalid_frames_and_unused_fits_do_not_supervise(stores: dict[str, FeatureStore]) -> None:
    only_two = DataConfig(sets_3d=("two",), no_smpl=("two",), batch_size=6, stride=1)
    targets = Sampler(stores, only_two, frames=FRAMES, seed=0).batch(0).targets
    assert not targets.w_smpl.any()
    share = float((Sampler(stores, only_two, frames=FRAMES, seed=0).batch(0)[1].w_3d == 0).float().mean())
    assert 0 < share < 1  # the fixture calls a fifth of its frames invalid


def test_officially_frames_that_are_not_valid_are_labels(stores: dict[str, FeatureStore]) -> None:
    data = DataConfig(sets_3d=("one",), batch_size=6, stride=1)
    masked, official = (
        Sampler(stores, replace(data, invalid_frames=how), frames=FRAMES, seed=0).batch(0).targets
        for how in ("masked", "official")
    )
    for name in ("w_3d", "w_smpl"):
        assert 0.5 < float(getattr(masked, name).mean()) < 1 and getattr(official, name).all()
    assert torch.equal(masked.joints3d, official.joints3d)


def test_a_perfect_prediction_of_stored_labels_with_unknown_joints_costs_nothing(tmp_path: Path) -> None:
    """The set says which joints are unknown; it stores 0 for them, the place of the pelvis."""
    body = load_body()
    write_feature_set(tmp_path, tracks=[30, 24], feature_size=8, body=body)
    store = FeatureStore.open(tmp_path)
    unknown = np.random.default_rng(0).random(store.joints3d_valid.shape) < 0.01
    store.joints3d, store.joints3d_valid = np.where(unknown[..., None], np.float32(0), store.joints3d), ~unknown
    data = DataConfig(sets_3d=("one",), batch_size=6, stride=1)
    targets = Sampler({"one": store}, data, frames=FRAMES, seed=0).batch(0).targets
    assert targets.joints3d_valid is not None and 0 < float(targets.known_3d.float().mean()) < 1
    perfect = SMPLParams(targets.rotmats, targets.betas, torch.tensor([0.9, 0, 0]).expand(6, FRAMES, 3))
    output = GLoTOutput(perfect, perfect, torch.zeros(6, FRAMES, dtype=torch.bool), has_local=False)
    config = LossConfig(keypoints2d=0, velocity2d=0)  # the camera of the fixture is another one
    assert float(glot_loss(output, targets, body=body, config=config)[0]) == pytest.approx(0, abs=1e-6)


def test_a_step_always_gives_the_same_batch_and_steps_differ(stores: dict[str, FeatureStore]) -> None:
    one, again = sampler(stores), sampler(stores)
    for step in (0, 5):
        assert torch.equal(one.batch(step)[0], again.batch(step)[0])
    again.batch(17)  # batches of other steps in between change nothing
    assert torch.equal(one.batch(6)[0], again.batch(6)[0])
    assert not torch.equal(one.batch(0)[0], one.batch(1)[0])
    assert not torch.equal(one.batch(0)[0], sampler(stores, seed=4).batch(0)[0])


def test_a_pass_visits_every_window_once(stores: dict[str, FeatureStore]) -> None:
    stream: Stream = sampler(stores).streams[1]
    for number in range(3):
        picked = stream.take(np.arange(number * len(stream), (number + 1) * len(stream)))
        for window_set, starts, _ in picked:
            assert sorted(starts.tolist()) == sorted(window_set.starts.tolist())
    first, second = (stream.take(np.arange(n * len(stream), (n + 1) * len(stream)))[0][1] for n in (0, 1))
    assert first.tolist() != second.tolist()


def test_too_many_workers_for_the_batch(stores: dict[str, FeatureStore]) -> None:
    with pytest.raises(InputError, match="12 \\+ 8"):
        sampler(stores, world=9)


def test_tracks_shorter_than_a_window_are_refused(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    write_feature_set(tmp_path, tracks=[5, 6], feature_size=8)
    with pytest.raises(InputError, match="no track has 8 consecutive frames"):
        Sampler({"one": FeatureStore.open(tmp_path)}, DataConfig(sets_3d=("one",)), frames=FRAMES, seed=0)
