"""Clips in, the same clips out with their targets rounded as the reference's loaders round them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from glot.human.crop import keypoints_to_crop
from pipelines.decoders.clips import Clip


def round_targets(clip: Clip) -> Clip:
    """Rounds the targets to float16 and back, as every training and validation loader of TCMR and GLoT does.

    2D joints are rounded in crop units, as in the reference: by about 0.05 px of a 224 px crop. joints3d are rounded in
    metres: by 2 to 4 mm if they contain the translation in the world. Features stay float32.
    """
    keypoints2d = clip.keypoints2d.copy()
    half_side = clip.crop_scale * clip.bbox[:, None, 2:3] / 2
    in_crop = _float16(keypoints_to_crop(clip.keypoints2d, clip.bbox, clip.crop_scale)[..., :2])
    known = clip.keypoints2d[..., 2:] > 0  # unknown joints may have coordinates that are too large for float16
    keypoints2d[..., :2] = np.where(known, in_crop * half_side + clip.bbox[:, None, :2], clip.keypoints2d[..., :2])
    return replace(
        clip,
        keypoints2d=keypoints2d,
        joints3d=_float16(clip.joints3d),
        pose=_float16(clip.pose),
        betas=_float16(clip.betas),
    )


def _float16(values: NDArray[np.floating]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # coordinates of unknown joints may be too large
        return values.astype(np.float16).astype(np.float64)
