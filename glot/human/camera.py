"""Weak-perspective cameras of a crop, cam (s, tx, ty), in; translations, projections and full-image cameras out.

Cameras follow SPIN: the crop is 224 px wide, the focal length is 5000 px, and y points down as in pictures.
"""

import torch
from torch import Tensor

FOCAL_LENGTH = 5000.0  # px, for a crop that is CROP_SIZE wide
CROP_SIZE = 224.0  # px; glot.human.crop has the same number as an int, for pictures


def crop_translation(cam: Tensor) -> Tensor:
    """cam (..., 3) -> translation (..., 3) in metres that puts the body in front of the crop's perspective camera."""
    scale, tx, ty = cam.unbind(-1)
    return torch.stack((tx, ty, 2 * FOCAL_LENGTH / (CROP_SIZE * scale + 1e-9)), dim=-1)


def project(points: Tensor, cam: Tensor) -> Tensor:
    """points (..., P, 3) in metres, cam (..., 3) -> (..., P, 2) in crop units: [-1, 1] over the crop's 224 px."""
    placed = points + crop_translation(cam)[..., None, :]
    return placed[..., :2] / placed[..., 2:] * (FOCAL_LENGTH / (CROP_SIZE / 2))


def full_image_cam(cam: Tensor, boxes: Tensor, *, width: int, height: int) -> Tensor:
    """Crop cam (N, 3) and boxes (N, 3: centre x, y and side of the crop, px) -> (N, 4): (sx, sy, tx, ty) of the image.

    In units of the image, [-1, 1] from edge to edge, x = sx (X + tx), y = sy (Y + ty), y down. The side of the crop is
    the side of the person's box times the crop scale.
    """
    scale, tx, ty = cam.unbind(-1)
    centre_x, centre_y, side = boxes.unbind(-1)
    sx, sy = scale * side / width, scale * side / height
    half_width, half_height = width / 2, height / 2
    tx = (centre_x - half_width) / half_width / sx + tx
    ty = (centre_y - half_height) / half_height / sy + ty
    return torch.stack((sx, sy, tx, ty), dim=-1)


def full_image_translation(cam: Tensor, boxes: Tensor, *, width: int, height: int, focal: float) -> Tensor:
    """Crop cam (N, 3), boxes (N, 3) as in ``full_image_cam`` -> the body's translation (N, 3) in metres.

    It is for a camera with a focal length of ``focal`` px whose principal point is the image centre. The body keeps the
    place and the size that it has in the crop.
    """
    scale, tx, ty = cam.unbind(-1)
    centre_x, centre_y, side = boxes.unbind(-1)
    depth = 2 * focal / (side * scale + 1e-9)
    return torch.stack(
        (tx + (centre_x - width / 2) * depth / focal, ty + (centre_y - height / 2) * depth / focal, depth), dim=-1
    )


def crop_cam(transl: Tensor, boxes: Tensor, *, width: int, height: int, focal: float) -> Tensor:
    """transl (N, 3) m, boxes (N, 3) as in ``full_image_cam`` -> cam (N, 3): undoes ``full_image_translation``."""
    x, y, depth = transl.unbind(-1)
    centre_x, centre_y, side = boxes.unbind(-1)
    return torch.stack(
        (
            2 * focal / (side * depth),
            x - (centre_x - width / 2) * depth / focal,
            y - (centre_y - height / 2) * depth / focal,
        ),
        dim=-1,
    )
