"""Joints, cameras and boxes of a Motion agree about where the person is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from glot.human.body import Body, load_body
from glot.human.camera import project
from glot.motion.person_motion import Motion, default_focal, make_motion, vertices
from tests.fixtures.motion import moving, params


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def test_joints_are_those_of_the_whole_body(body: Body) -> None:
    motion = moving(body)
    output = body(torch.from_numpy(motion.rotmats), torch.from_numpy(motion.betas))
    np.testing.assert_allclose(motion.joints3d, output.smpl_joints.numpy() + motion.transl[:, None], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        vertices(motion, body), output.vertices.numpy() + motion.transl[:, None], rtol=0, atol=1e-5
    )


def test_keypoints_are_the_joints_as_the_camera_sees_them(body: Body) -> None:
    motion = moving(body)
    seen = motion.joints3d @ motion.intrinsics.T.astype(np.float32)
    np.testing.assert_allclose(motion.keypoints2d, seen[..., :2] / seen[..., 2:], atol=1e-2)


def test_through_a_long_lens_the_crops_camera_agrees(body: Body) -> None:
    """The model's camera is weak-perspective; perspective is stronger through a wide lens."""
    one = moving(body, frames=[4])
    box, side = one.crop_boxes[0], float(one.crop_boxes[0, 2])
    joints, cam = (torch.from_numpy(values) for values in (one.joints3d - one.transl[:, None], one.cam))
    by_crop = box[:2] + project(joints, cam)[0].numpy() * side / 2
    gaps = [
        np.abs(moving(body, frames=[4], focal=focal).keypoints2d[0] - by_crop).max()
        for focal in (5000 * side / 224, default_focal(one.width, one.height))
    ]
    assert gaps[0] < 0.01 * side and gaps[0] < gaps[1] < 0.25 * side


def test_the_full_image_camera_is_the_crops(body: Body) -> None:
    """orig_cam's x = sx (X + tx) is where the crop's camera puts a point at the body's depth."""
    motion = moving(body)
    sx, sy, tx, ty = motion.full_image_cam.T
    pelvis = motion.joints3d[:, 0] - motion.transl
    x, y = (sx * (pelvis[:, 0] + tx) + 1) * motion.width / 2, (sy * (pelvis[:, 1] + ty) + 1) * motion.height / 2
    np.testing.assert_allclose(np.stack((x, y), 1), motion.keypoints2d[:, 0], atol=0.02 * motion.crop_boxes[0, 2])


def test_a_box_twice_as_wide_is_a_person_half_as_far(body: Body) -> None:
    near, far = moving(body, box_width=300.0), moving(body, box_width=150.0)
    np.testing.assert_allclose(2 * near.transl[:, 2], far.transl[:, 2], rtol=1e-5)


def test_arrays_that_do_not_fit_are_refused(body: Body) -> None:
    motion = moving(body)
    with pytest.raises(ValueError, match="betas is"):
        replace(motion, betas=motion.betas[:-1])
    with pytest.raises(ValueError, match="rising"):
        replace(motion, frames=motion.frames[::-1].copy())
    with pytest.raises(ValueError, match="float64"):
        replace(motion, transl=motion.transl.astype(np.float64))
    with pytest.raises(ValueError, match="focal 0"):
        replace(motion, focal=0.0)


def test_every_frame_counts_as_seen_by_default(body: Body) -> None:
    motion = make_motion(
        params(3), body, person="1", frames=[0, 1, 5], bbox=np.full((3, 4), 100.0), crop_scale=np.ones(3),
        fps=25, width=640, height=480,
    )  # fmt: skip
    assert isinstance(motion, Motion) and motion.seen.all() and (motion.scores == 1).all()
    assert motion.focal == pytest.approx(800) and len(motion) == 3
