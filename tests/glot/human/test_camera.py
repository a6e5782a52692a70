"""The camera of the crop and the camera of the full picture put the body into the same pixels."""

import torch

from glot.human.camera import FOCAL_LENGTH, crop_translation, full_image_cam, full_image_translation, project

GENERATOR = torch.Generator().manual_seed(0)
POINTS = torch.randn(5, 49, 3, generator=GENERATOR) * 0.4
CAM = torch.tensor([[0.9, 0.1, -0.2], [0.5, 0.0, 0.3], [1.2, -0.1, 0.0], [0.7, 0.05, 0.02], [1.0, 0.0, 0.0]])
BOXES = torch.tensor([[960.0, 540, 600], [100, 200, 300], [1800, 900, 800], [640, 360, 224], [5, 5, 100]])
WIDTH, HEIGHT = 1920, 1080


def crop_pixels(points: torch.Tensor) -> torch.Tensor:
    """Crop units -> pixels of the full picture."""
    return BOXES[:, None, :2] + points * BOXES[:, None, 2:] / 2


def test_the_origin_lands_where_the_camera_says() -> None:
    centre = project(torch.zeros(5, 1, 3), CAM)[:, 0]
    torch.testing.assert_close(centre, CAM[:, :1] * CAM[:, 1:])  # s (tx, ty)


def test_projection_is_nearly_weak_perspective() -> None:
    weak = CAM[:, None, :1] * (POINTS[..., :2] + CAM[:, None, 1:])
    assert (project(POINTS, CAM) - weak).abs().max() < 0.08  # the body is thin against tens of metres of distance
    flat = POINTS * torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(project(flat, CAM), CAM[:, None, :1] * (flat[..., :2] + CAM[:, None, 1:]))


def test_depth_of_a_crop_camera() -> None:
    translation = crop_translation(torch.tensor([[1.0, 0.2, 0.3], [0.5, 0.2, 0.3]]))
    torch.testing.assert_close(translation[:, 2], torch.tensor([2 * FOCAL_LENGTH / 224, 4 * FOCAL_LENGTH / 224]))
    torch.testing.assert_close(translation[:, :2], torch.tensor([[0.2, 0.3]]).expand(2, 2))


def test_full_image_cam_keeps_the_pixels() -> None:
    sx, sy, tx, ty = full_image_cam(CAM, BOXES, width=WIDTH, height=HEIGHT)[:, :, None].unbind(1)
    x = sx * (POINTS[..., 0] + tx) * WIDTH / 2 + WIDTH / 2
    y = sy * (POINTS[..., 1] + ty) * HEIGHT / 2 + HEIGHT / 2
    weak = CAM[:, None, :1] * (POINTS[..., :2] + CAM[:, None, 1:])
    torch.testing.assert_close(torch.stack((x, y), -1), crop_pixels(weak), rtol=0, atol=2e-2)


def test_full_image_translation_keeps_root_and_size() -> None:
    focal = 1500.0
    translation = full_image_translation(CAM, BOXES, width=WIDTH, height=HEIGHT, focal=focal)
    ends = torch.tensor([[0.0, 0, 0], [1, 0, 0]]) + translation[:, None]
    pixels = ends[..., :2] / ends[..., 2:] * focal + torch.tensor([WIDTH / 2, HEIGHT / 2])
    torch.testing.assert_close(pixels[:, 0], crop_pixels(project(torch.zeros(5, 1, 3), CAM))[:, 0], rtol=0, atol=2e-2)
    torch.testing.assert_close(pixels[:, 1, 0] - pixels[:, 0, 0], CAM[:, 0] * BOXES[:, 2] / 2, rtol=1e-4, atol=0)


def test_gradient_reaches_cam_and_points() -> None:
    cam, points = CAM.clone().requires_grad_(), POINTS.clone().requires_grad_()
    project(points, cam).sum().backward()
    for leaf in (cam, points):
        assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0
