"""A picture and a box in; a crop of 224 px, its affine map, its normalised tensor, and 2D joints in crop units out.

A crop is the square of side ``crop_scale * width`` around the centre of ``bbox`` (centre x, centre y, width, height;
px). Integer coordinates are pixel centres. The official code crops some sets at a scale of 1.3 or 1.0 but computes
their 2D targets for 1.2, so the targets do not fit the crop. Here both have the same ``crop_scale``.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

CROP_SIZE = 224
DEFAULT_CROP_SCALE = 1.2
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB
STD = (0.229, 0.224, 0.225)


def crop_matrix(bbox: ArrayLike, crop_scale: float, *, size: int = CROP_SIZE) -> NDArray[np.float64]:
    """(2, 3) affine map from image px to crop px: out = (p - centre) * size / side + size / 2.

    The centre goes to (size/2, size/2), the middle of the lower edge to (size/2, size), and the middle of the right
    edge to (size, size/2).
    """
    x, y, width, _ = np.asarray(bbox, np.float64)
    scale = size / (crop_scale * width)
    return np.array([[scale, 0.0, size / 2 - x * scale], [0.0, scale, size / 2 - y * scale]])


def crop_image(
    frame_bgr: NDArray[np.uint8], bbox: ArrayLike, crop_scale: float, *, size: int = CROP_SIZE
) -> NDArray[np.uint8]:
    """(H, W, 3) BGR as decoded -> (size, size, 3) RGB, bilinear, black outside the image."""
    matrix = crop_matrix(bbox, crop_scale, size=size)
    crop = cv2.warpAffine(frame_bgr, matrix, (size, size), flags=cv2.INTER_LINEAR)
    # Converting the crop to RGB takes a quarter of the time that converting the full frame would take.
    return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def normalise(crops: "Tensor") -> "Tensor":
    """(B, 224, 224, 3) uint8 RGB -> (B, 3, 224, 224) float32 on the same device: (value / 255 - MEAN) / STD."""
    import torch  # not needed where crops are only cut

    if crops.ndim != 4 or crops.shape[-1] != 3 or crops.dtype != torch.uint8:
        raise ValueError(f"crops must be (B, H, W, 3) uint8, got {tuple(crops.shape)} {crops.dtype}")
    mean = torch.tensor(MEAN, device=crops.device)
    std = torch.tensor(STD, device=crops.device)
    return ((crops.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def keypoints_to_crop(keypoints2d: ArrayLike, bbox: ArrayLike, crop_scale: ArrayLike) -> NDArray[np.float64]:
    """(..., J, 3: x, y px, confidence) -> the same with x, y in crop units: -1 to 1 from edge to edge of the crop.

    ``bbox`` (..., 4) px. ``crop_scale``: a number or (...), the scale that the features were cropped with. 1 is the
    edge of the crop, not its last pixel: x' = 2 * x_crop / 224 - 1. Confidence does not change. Joints of confidence 0
    are moved like the others, so a loss has to weight joints by their confidence.
    """
    keypoints2d, bbox = np.array(keypoints2d, np.float64), np.asarray(bbox, np.float64)
    half_side = np.asarray(crop_scale, np.float64) * bbox[..., 2] / 2
    keypoints2d[..., :2] -= bbox[..., None, :2]
    keypoints2d[..., :2] /= half_side[..., None, None]
    return keypoints2d
