"""Clips in, the same clips out with their targets as precise as the reference's loaders make them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from glot.human.crop import keypoints_to_crop
from pipelines.decoders.clips import Clip


def round_targets(clip: Clip) -> Clip:
    """Targets rounded to float16 and back, as every training and validation loader of TCMR and GLoT hands them over.

    2D joints are rounded in crop units, where the reference does it: about 0.05 px of a 224 px crop. joints3d are
    rounded where they are, which costs 2 to 4 mm where the world's translation is in them. Features stay float32.
    """
    keypoints2d = clip.keypoints2d.copy()
    half_side = clip.crop_scale * clip.bbox[:, None, 2:3] / 2
    in_crop = _float16(keypoints_to_crop(clip.keypoints2d, clip.bbox, clip.crop_scale)[..., :2])
    there = clip.keypoints2d[..., 2:] > 0  # what is missing may lie beyond the range of a float16
    keypoints2d[..., :2] = np.where(there, in_crop * half_side + clip.bbox[:, None, :2], clip.keypoints2d[..., :2])
    return replace(
        clip,
        keypoints2d=keypoints2d,
        joints3d=_float16(clip.joints3d),
        pose=_float16(clip.pose),
        betas=_float16(clip.betas),
    )


def _float16(values: NDArray[np.floating]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # only of joints that are not there
        return values.astype(np.float16).astype(np.float64)
