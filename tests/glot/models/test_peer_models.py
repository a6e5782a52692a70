"""Laws of TCMR, MPS-Net, VIBE and MEVA: what they promise of windows, tracks, frames and weights."""

from typing import Any

import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.windows import window_pieces
from glot.models.inference import predict_track
from glot.models.meva import MEVA, meva_to_spin, spin_to_meva
from glot.models.prediction.track_predictors import track_predictor
from glot.models.smpl_params import SMPLParams
from glot.models.temporal_model import TemporalModel
from glot.recipes import recipe_named
from tests.fixtures.peer_models import PEERS, small_peer

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in PEERS),
    ("tcmr", {"frames": 9, "gru_layers": 1}),
    ("tcmr", {"frames": 3, "gru_layers": 3}),
    ("mps_net", {"frames": 24}),
    ("mps_net", {"frames": 24, "hafi_frames": "official"}),
    ("vibe", {"frames": 5}),
    ("meva", {"frames": 40, "variant": "with_first_pose"}),
]


def features(rows: int, size: int = 24) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, size)).astype(np.float32)


def window_by_window(model: TemporalModel, track: np.ndarray) -> SMPLParams:
    """What the model says of every frame, one window at a time; of frames in two windows, as the windows are cut."""
    frames, answered, rows = model.config.frames, model.answered_frames, len(track)
    taken: list[tuple[np.ndarray, int]] = []  # rows of a window, and the frame of it that is taken
    if len(answered) == 1:
        taken = [(np.arange(row - answered[0], row - answered[0] + frames), answered[0]) for row in range(rows)]
    else:
        overlap = 2 * (frames // 18) if isinstance(model, MEVA) else 0
        for piece in window_pieces(rows, frames, overlap=overlap):
            window = np.arange(piece.start, piece.start + frames)
            taken += [(window, row - piece.start) for row in range(piece.first, piece.stop)]
    found = []
    with torch.no_grad():
        for window, frame in taken:
            bodies = model.bodies(torch.from_numpy(track[window.clip(0, rows - 1)])[None])
            found.append([values[0, frame - answered[0]] for values in bodies])
    return SMPLParams(*(torch.stack(values) for values in zip(*found, strict=True)))


@pytest.mark.parametrize(("kind", "fields"), VARIANTS)
@pytest.mark.parametrize("rows", [1, 4, 16, 50])
def test_a_track_is_predicted_as_its_windows_are(kind: str, fields: dict[str, Any], rows: int) -> None:
    model = small_peer(kind, **fields)
    track = features(rows)
    expected = window_by_window(model, track)
    predictor = track_predictor(model)
    for batch_size in (64, 7):
        found = predict_track(predictor, track, batch_size=batch_size)
        assert found.betas.shape == (rows, 10)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_a_released_mps_net_sees_batches_of_eight_consecutive_windows() -> None:
    model = small_peer("mps_net", similarities="official")
    track = features(19)
    found = predict_track(model, track, batch_size=64)
    windows = np.stack([np.arange(row - 8, row + 8).clip(0, 18) for row in range(19)])
    with torch.no_grad():
        parts = [model.bodies(torch.from_numpy(track[part])) for part in (windows[:8], windows[8:16], windows[16:])]
    for mine, theirs in zip(found, (torch.cat(values)[:, 0] for values in zip(*parts, strict=True)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    alone = predict_track(small_peer("mps_net"), track)
    assert not torch.allclose(alone.rotmats, found.rotmats, atol=1e-4)  # it matters


@pytest.mark.parametrize("kind", PEERS)
def test_a_prediction_does_not_depend_on_the_other_windows_of_the_batch(kind: str) -> None:
    model, windows = small_peer(kind), torch.from_numpy(features(64)).view(4, 16, 24)
    with torch.no_grad():
        together = model.bodies(windows)
        for number, window in enumerate(windows):
            for mine, theirs in zip(model.bodies(window[None]), together, strict=True):
                torch.testing.assert_close(mine[0], theirs[number], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PEERS)
def test_supervised_bodies_have_their_frames_and_answered_bodies_are_among_them(kind: str) -> None:
    model, windows = small_peer(kind), torch.from_numpy(features(32)).view(2, 16, 24)
    with torch.no_grad():
        output = model(windows).params
        answered = model.bodies(windows)
    assert output.betas.shape == (2, len(model.supervised_frames), 10)
    frames = list(model.supervised_frames)
    last = [len(frames) - 1 - frames[::-1].index(frame) for frame in model.answered_frames]  # TCMR: the last of three
    for mine, theirs in zip(output, answered, strict=True):
        torch.testing.assert_close(mine[:, last], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", PEERS)
def test_training_leaves_the_same_shapes(kind: str) -> None:
    model, windows = small_peer(kind), torch.from_numpy(features(32)).view(2, 16, 24)
    assert [x.shape for x in model.train()(windows).params] == [x.shape for x in model.eval()(windows).params]


def test_vibe_sees_only_the_past() -> None:
    model, window = small_peer("vibe"), torch.from_numpy(features(16))[None]
    changed = window.clone()
    changed[:, 10:] += 1
    with torch.no_grad():
        before, after = model.bodies(window), model.bodies(changed)
    assert torch.equal(before.rotmats[:, :10], after.rotmats[:, :10])
    assert not torch.allclose(before.rotmats[:, 10:], after.rotmats[:, 10:])


def test_the_layouts_of_poses_are_inverse_and_have_the_same_rotations() -> None:
    pose = torch.randn(5, 144)
    assert torch.equal(spin_to_meva(meva_to_spin(pose)), pose)
    columns = meva_to_spin(pose).view(5, 24, 3, 2)
    assert torch.equal(columns[..., 0], pose.view(5, 24, 2, 3)[..., 0, :])  # MEVA: the first column first


def test_mevas_decoder_is_frozen_and_its_gradient_passes() -> None:
    model = small_peer("meva").train()
    model(torch.from_numpy(features(32)).view(2, 16, 24)).params.rotmats.square().sum().backward()
    assert all(parameter.grad is None for parameter in model.vae_model.parameters())
    assert model.motion_encoder.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model=tcmr", "model.mask_ratio=0.5"], "no field 'mask_ratio'; the fields are kind, feature_size"),
        (["model=hmr"], "model=hmr: must be one of glot, tcmr, mps_net, vibe, meva"),
        (["model=meva", "model.frames=91"], "model.frames=91: must be a whole number, 1 to 90"),
        (["model=mps_net", "model.frames=12", "model.hafi_frames=official"], "must be 13 or more"),
        (["model=tcmr", "whiten=1"], "only input layers of glot are whitened; set whiten=0 for tcmr"),
        (["model=tcmr", "discriminator.motions=amass"], "only vibe and mps_net have one"),
        (["model=vibe", "data.strides=h36m:2"], "h36m is none of the training sets"),
    ],
)
def test_settings_that_do_not_fit_a_model(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe_named("open_sample", settings)
