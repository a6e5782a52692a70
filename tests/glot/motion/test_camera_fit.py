"""True cameras are found again, a wrong limb has little effect, and without landmarks the prediction stays."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glot.human.camera import full_image_translation
from glot.motion.camera_fit import CAMERA_PAIRS, fit_cameras, steady_cameras

FRAMES = 40


SIZE: dict[str, Any] = {"width": 320, "height": 240, "focal": 400.0}


@pytest.fixture()
def world() -> dict[str, NDArray]:
    """Joints (N, 12, 3), the true cameras, the landmarks through them, and predicted cameras, which are wrong."""
    random = np.random.default_rng(0)
    joints = random.normal(0, 0.4, (FRAMES, len(CAMERA_PAIRS), 3))
    cam = np.column_stack([0.9 + 0 * np.arange(FRAMES), np.linspace(-0.1, 0.1, FRAMES), np.full(FRAMES, 0.05)])
    boxes = np.column_stack([np.linspace(100, 140, FRAMES), np.full(FRAMES, 90.0), np.full(FRAMES, 144.0)])
    where = full_image_translation(torch.from_numpy(cam), torch.from_numpy(boxes), **SIZE).numpy()
    placed = joints + where[:, None]
    points = placed[..., :2] / placed[..., 2:] * SIZE["focal"] + [SIZE["width"] / 2, SIZE["height"] / 2]
    landmarks = np.concatenate([points, np.ones((FRAMES, len(CAMERA_PAIRS), 1))], axis=2)
    guess = cam * [0.7, 1, 1] + [0, 0.1, -0.1]
    return {"joints": joints, "cam": cam, "boxes": boxes, "landmarks": landmarks, "guess": guess}


def fitted(world: dict[str, NDArray], landmarks: NDArray) -> NDArray[np.float32]:
    cameras = fit_cameras(world["joints"], landmarks, world["guess"], boxes=world["boxes"], **SIZE)
    return steady_cameras(cameras, world["guess"], fps=5.0)


def test_the_true_camera_is_found_again(world: dict[str, NDArray]) -> None:
    np.testing.assert_allclose(fitted(world, world["landmarks"]), world["cam"], atol=2e-3)


def test_a_misplaced_limb_has_little_effect(world: dict[str, NDArray]) -> None:
    wrong = world["landmarks"].copy()
    wrong[:, 4, :2] += 60  # a wrist, half a box away
    plain = wrong.copy()
    plain[:, 4, 2] = 0
    off = np.abs(fitted(world, wrong) - world["cam"])[5:-5]
    assert off.max() < 0.1
    np.testing.assert_allclose(fitted(world, plain)[5:-5], world["cam"][5:-5], atol=2e-3)


def test_the_correction_is_interpolated_over_frames_without_landmarks(world: dict[str, NDArray]) -> None:
    hidden = world["landmarks"].copy()
    hidden[10:30, :, 2] = 0
    np.testing.assert_allclose(fitted(world, hidden), world["cam"], atol=5e-3)


def test_without_landmarks_the_prediction_stays(world: dict[str, NDArray]) -> None:
    np.testing.assert_allclose(fitted(world, world["landmarks"] * 0), world["guess"], rtol=1e-6)


def test_distorted_landmarks_do_not_move_people_far_away(world: dict[str, NDArray]) -> None:
    squashed = world["landmarks"].copy()
    middle = squashed[:3, :, :2].mean(axis=1, keepdims=True)
    squashed[:3, :, :2] = middle + 0.05 * (squashed[:3, :, :2] - middle)
    np.testing.assert_allclose(fitted(world, squashed), world["cam"], atol=0.02)
