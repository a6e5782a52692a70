"""Made-up people for the tests of Motions and their files: smooth random poses, upright before the camera."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from glot.body import Body
from glot.model import SMPLParams
from glot.motion import Motion, make_motion

GAPPY = (3, 4, 5, 6, 9, 10, 11, 16, 17)


def params(count: int, *, seed: int = 0) -> SMPLParams:
    """Poses that sway about a random one, each joint at a pace of its own; y down, as the camera sees people."""
    rng = np.random.default_rng(seed)
    time = np.arange(count)[:, None, None]
    sway = np.sin(rng.uniform(0.05, 0.3, (1, 24, 3)) * time + rng.uniform(0, 6, (1, 24, 3)))
    poses = Rotation.from_rotvec((rng.normal(0, 0.25, (1, 24, 3)) + 0.3 * sway).reshape(-1, 3)).as_matrix()
    rotmats = poses.reshape(count, 24, 3, 3)
    rotmats[:, 0] = np.diag([1.0, -1.0, -1.0]) @ rotmats[:, 0]
    betas = rng.normal(0, 0.5, (1, 10)) + 0.02 * rng.normal(size=(count, 10))
    cam = np.array([0.9, 0.02, 0.1]) + 0.01 * np.sin(0.2 * time[..., 0] + [0, 1, 2])
    return SMPLParams(*(torch.from_numpy(values).float() for values in (rotmats, betas, cam)))


def moving(
    body: Body,
    *,
    person: str = "1",
    frames: Sequence[int] = GAPPY,
    seed: int = 0,
    box_width: float = 220.0,
    focal: float | None = None,
) -> Motion:
    """A person who crosses the picture in ``frames``; rows are those of one walk, so gaps are gaps in it."""
    every = params(max(frames) + 1, seed=seed)
    rows = np.array(frames)
    bbox = np.stack((200 + 4.0 * rows, 190 + 0 * rows, box_width + 0 * rows, box_width + 0 * rows), axis=1)
    seen = rows % 5 != 0
    return make_motion(
        SMPLParams(*(values[rows] for values in every)),
        body,
        person=person,
        frames=rows,
        bbox=bbox,
        crop_scale=np.full(len(rows), 1.2),
        fps=25.0,
        width=640,
        height=360,
        seen=seen,
        scores=np.where(seen, 0.9, 0.0),
        focal=focal,
    )
