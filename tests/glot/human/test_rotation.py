"""Laws of the rotation conversions at angles where they often fail, zero and pi, and in between."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from glot.human.rotation import axis_angle_to_rotmat, rot6d_to_rotmat, rotmat_to_axis_angle, rotmat_to_rot6d

ANGLES = [0.0, 1e-12, 1e-8, 1e-4, 0.1, 1.0, 2.0, 3.0, np.pi - 1e-3, np.pi - 1e-6]


def axes(count: int = 50) -> Tensor:
    values = torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Near rotations about the coordinate axes, the quaternion formula changes.
    values = torch.cat((values, torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)))
    return values / values.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_round_trip(angle: float) -> None:
    vectors = axes() * angle
    back = rotmat_to_axis_angle(axis_angle_to_rotmat(vectors))
    torch.testing.assert_close(back, vectors, rtol=0, atol=1e-7)
    single = rotmat_to_axis_angle(axis_angle_to_rotmat(vectors.float()))
    torch.testing.assert_close(single.double(), vectors, rtol=0, atol=2e-3 if angle > 3.1 else 1e-5)


def test_at_pi_the_rotation_is_right_even_if_the_axis_flips() -> None:
    rotmats = axis_angle_to_rotmat(axes() * np.pi)
    torch.testing.assert_close(axis_angle_to_rotmat(rotmat_to_axis_angle(rotmats)), rotmats, rtol=0, atol=1e-7)


def test_axis_angle_agrees_with_scipy() -> None:
    vectors = np.random.default_rng(1).standard_normal((100, 3))
    expected = Rotation.from_rotvec(vectors).as_matrix()
    found = axis_angle_to_rotmat(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    vector = Rotation.from_matrix(expected).as_rotvec()
    np.testing.assert_allclose(rotmat_to_axis_angle(torch.from_numpy(expected)).numpy(), vector, rtol=0, atol=1e-9)


def test_rot6d_round_trip_and_layout() -> None:
    rotmats = axis_angle_to_rotmat(axes() * 2)
    six = rotmat_to_rot6d(rotmats)
    torch.testing.assert_close(rot6d_to_rotmat(six), rotmats)
    # Row by row: the first two numbers are the first row of the first two columns.
    torch.testing.assert_close(six[:, :2], rotmats[:, 0, :2])
    torch.testing.assert_close(six[:, 4], rotmats[:, 2, 0])


def test_rot6d_gives_a_rotation_from_anything_and_ignores_scale() -> None:
    six = torch.randn(200, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rotmats = rot6d_to_rotmat(six)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(rotmats @ rotmats.transpose(-1, -2), eye.expand_as(rotmats))
    torch.testing.assert_close(torch.linalg.det(rotmats), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(rot6d_to_rotmat(six * 7), rotmats)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, np.pi])
def test_gradients_are_finite(angle: float) -> None:
    vectors = (axes() * angle).float().requires_grad_()
    rotmats = axis_angle_to_rotmat(vectors)
    rotmats.square().sum().backward()
    assert vectors.grad is not None and vectors.grad.isfinite().all()
    leaf = rotmats.detach().requires_grad_()
    rotmat_to_axis_angle(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all()


def test_any_leading_shape() -> None:
    vectors = torch.randn(2, 5, 24, 3, generator=torch.Generator().manual_seed(3))
    rotmats = axis_angle_to_rotmat(vectors)
    assert rotmats.shape == (2, 5, 24, 3, 3) and rotmat_to_rot6d(rotmats).shape == (2, 5, 24, 6)
    torch.testing.assert_close(rotmats[1, 3, 7], axis_angle_to_rotmat(vectors[1, 3, 7]))
    assert rotmat_to_axis_angle(rotmats).shape == vectors.shape


@pytest.mark.parametrize("angle", ANGLES)
def test_the_gradient_of_a_turn_about_its_own_axis_is_the_axis(angle: float) -> None:
    """d/da axis_angle(R(axis, a)) = axis, in double precision and, away from the singular ends, in single."""
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 2e-3)):
        turns = axes().to(dtype)
        if dtype == torch.float32 and (angle > 3.1 or 0 < angle < 1e-4):
            continue  # float32 does not tell such a rotation from one by zero or pi
        if angle in (1e-12, 1e-8):
            continue  # nor does float64 tell a cosine of such an angle from 1; the next test looks at zero itself
        amount = torch.full((len(turns), 1), angle, dtype=dtype, requires_grad=True)
        back = rotmat_to_axis_angle(axis_angle_to_rotmat(turns * amount))
        (back * turns).sum().backward()  # along the axis, the vector grows by 1 for each radian
        if angle:
            torch.testing.assert_close(amount.grad, torch.ones_like(amount), rtol=0, atol=tolerance)
        assert amount.grad is not None and amount.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_identity_the_gradient_is_that_of_a_small_turn(dtype: torch.dtype) -> None:
    """R = 1 + [w] to first order, and its axis-angle is w. VIBE's conversion has NaN there."""
    leaf = torch.eye(3, dtype=dtype).expand(3, 3, 3).clone().requires_grad_()
    rotmat_to_axis_angle(leaf).diagonal().sum().backward()
    generators = axis_angle_to_rotmat(1e-6 * torch.eye(3, dtype=torch.float64)) - torch.eye(3, dtype=torch.float64)
    assert leaf.grad is not None
    change = (leaf.grad.double() * (generators / 1e-6)).sum((-1, -2))  # of w_k by a turn about axis k
    torch.testing.assert_close(change, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)
