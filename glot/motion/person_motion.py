"""Predicted bodies of one track and their boxes in; a Motion, one person through a video in metres and pixels, out.

N frames. Camera frame: x right, y down, z forward, metres; pixels of the upright picture, integers at pixel centres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from glot.human import camera
from glot.human.body import Body
from glot.human.joints import BETAS, JOINTS
from glot.models.smpl_params import SMPLParams

SHAPES = {
    "frames": (),
    "seen": (),
    "scores": (),
    "rotmats": (JOINTS, 3, 3),
    "betas": (BETAS,),
    "cam": (3,),
    "transl": (3,),
    "joints3d": (JOINTS, 3),
    "keypoints2d": (JOINTS, 2),
    "bbox": (4,),
    "crop_scale": (),
}
NEAREST = 0.05  # m; projection raises smaller depths to this: nearer points, or points behind the camera, are not seen
Y_UP = np.diag([1.0, -1.0, -1.0])  # camera frame -> y up, z towards the camera, as animation programs expect
TYPES = {"frames": np.int64, "seen": np.bool_}  # all others are float32


@dataclass(frozen=True)
class Motion:
    """One person's body through a video: N >= 1 frames, rising, with gaps where the person was out of sight.

    ``transl`` places the body in front of a pinhole camera of ``focal`` px whose principal point is the picture's
    centre. ``joints3d`` are SMPL's 24 joints, transl included; ``keypoints2d`` are their projections. ``cam`` is the
    same place in the form that the model predicts: the weak-perspective camera of the crop.
    ValueError if the arrays do not fit together.
    """

    person: str
    frames: NDArray[np.int64]  # (N,) numbers of frames in the video, from 0
    seen: NDArray[np.bool_]  # (N,) False where the box was interpolated between detections
    scores: NDArray[np.float32]  # (N,) score of the detection or of its landmarks, 0 where not seen
    rotmats: NDArray[np.float32]  # (N, 24, 3, 3) global_orient and body_pose, each relative to its parent joint
    betas: NDArray[np.float32]  # (N, 10)
    cam: NDArray[np.float32]  # (N, 3) s, tx, ty of the crop (glot.human.camera)
    transl: NDArray[np.float32]  # (N, 3) place of the body's origin, m
    joints3d: NDArray[np.float32]  # (N, 24, 3) m
    keypoints2d: NDArray[np.float32]  # (N, 24, 2) px
    bbox: NDArray[np.float32]  # (N, 4) centre x, centre y, width, height: px, without the crop scale
    crop_scale: NDArray[np.float32]  # (N,)
    fps: float
    width: int  # px
    height: int  # px
    focal: float  # px

    def __post_init__(self) -> None:
        count = len(self.frames)
        for name, shape in SHAPES.items():
            values, kind = getattr(self, name), TYPES.get(name, np.float32)
            if values.shape != (count, *shape) or values.dtype != kind:
                wanted = f"{(count, *shape)} {np.dtype(kind).name}"
                raise ValueError(
                    f"{name} is {values.shape} {values.dtype}, but a motion of {count} frames needs {wanted}"
                )
        if count == 0 or self.frames[0] < 0 or (np.diff(self.frames) <= 0).any():
            raise ValueError("frames: must be at least one, from 0 on, and rising")
        if not (self.fps > 0 and self.width > 0 and self.height > 0 and self.focal > 0):
            raise ValueError(f"fps {self.fps}, {self.width} x {self.height} px, focal {self.focal} px: must be over 0")

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, which: slice | NDArray[np.integer]) -> "Motion":
        """Some of the frames, at least one."""
        values: dict[str, Any] = {name: getattr(self, name)[which] for name in SHAPES}
        return replace(self, **values)

    @property
    def crop_boxes(self) -> NDArray[np.float32]:
        """(N, 3) centre x, centre y and side of the crops, px, as the functions of glot.human.camera take them."""
        return crop_boxes(self.bbox, self.crop_scale)

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        """(3, 3) matrix of the pinhole camera, px."""
        return np.array([[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1]])

    @property
    def full_image_cam(self) -> NDArray[np.float32]:
        """(N, 4) sx, sy, tx, ty: the weak-perspective camera of the whole picture (``orig_cam`` in VIBE's demo)."""
        cams, boxes = torch.from_numpy(self.cam), torch.from_numpy(self.crop_boxes)
        return camera.full_image_cam(cams, boxes, width=self.width, height=self.height).numpy()

    def y_up(self) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
        """Rotations (N, 24, 3, 3) and the pelvis (N, 3) m, with y up and z towards the camera."""
        rotmats = self.rotmats.astype(np.float64)
        rotmats[:, 0] = Y_UP @ rotmats[:, 0]
        return rotmats, self.joints3d[:, 0] @ Y_UP.T

    def at_rest(self, body: Body) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vertices (V, 3) and joints (24, 3) m of the person's mean shape in the rest pose."""
        with torch.no_grad():
            vertices, joints = body.at_rest(torch.from_numpy(self.betas.mean(axis=0, keepdims=True)))
        return vertices[0].numpy(), joints[0].numpy()


def make_motion(
    params: SMPLParams,
    body: Body,
    *,
    person: str,
    frames: ArrayLike,
    bbox: ArrayLike,
    crop_scale: ArrayLike,
    fps: float,
    width: int,
    height: int,
    seen: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    focal: float | None = None,
) -> Motion:
    """Predictions (N, 24, 3, 3), (N, 10), (N, 3) and the boxes of their crops -> Motion.

    Without ``seen`` and ``scores``, every frame counts as seen with score 1. Without ``focal``: ``default_focal``.
    """
    focal = default_focal(width, height) if focal is None else float(focal)
    boxes = np.asarray(bbox, np.float32)
    scales = np.asarray(crop_scale, np.float32)
    rotmats, betas, cam = (values.detach().float().cpu() for values in params)
    crops = torch.from_numpy(crop_boxes(boxes, scales))
    with torch.no_grad():
        joints = body.smpl_joints(rotmats, betas)  # from the body's origin
        transl = camera.full_image_translation(cam, crops, width=width, height=height, focal=focal)
        placed = joints + transl[:, None]
        keypoints2d = placed[..., :2] / placed[..., 2:].clamp(min=NEAREST) * focal + torch.tensor([width, height]) / 2
    return Motion(
        person=person,
        frames=np.asarray(frames, np.int64),
        seen=np.ones(len(cam), np.bool_) if seen is None else np.asarray(seen, np.bool_),
        scores=np.ones(len(cam), np.float32) if scores is None else np.asarray(scores, np.float32),
        rotmats=rotmats.numpy(),
        betas=betas.numpy(),
        cam=cam.numpy(),
        transl=transl.numpy(),
        joints3d=placed.numpy(),
        keypoints2d=keypoints2d.numpy(),
        bbox=boxes,
        crop_scale=scales,
        fps=float(fps),
        width=int(width),
        height=int(height),
        focal=focal,
    )


def with_bodies(motion: Motion, body: Body, *, rotmats: ArrayLike, betas: ArrayLike, transl: ArrayLike) -> Motion:
    """The motion with other bodies in its frames and boxes. Cameras, joints and keypoints follow from the bodies."""
    place, boxes = torch.from_numpy(np.asarray(transl, np.float32)), torch.from_numpy(motion.crop_boxes)
    cam = camera.crop_cam(place, boxes, width=motion.width, height=motion.height, focal=motion.focal)
    turns, shapes = (torch.from_numpy(np.asarray(values, np.float32)) for values in (rotmats, betas))
    kept = ("person", "frames", "seen", "scores", "bbox", "crop_scale", "fps", "width", "height", "focal")
    return make_motion(SMPLParams(turns, shapes, cam), body, **{name: getattr(motion, name) for name in kept})


def joined(pieces: Sequence[Motion]) -> Motion:
    """Consecutive pieces of one person's motion -> the whole."""
    values: dict[str, Any] = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in SHAPES}
    return replace(pieces[0], **values)


def default_focal(width: int, height: int) -> float:
    """Focal length in px of a usual camera, for a video whose camera is unknown: 53 degrees across the diagonal."""
    return float(np.hypot(width, height))


def vertices(motion: Motion, body: Body, rows: slice | NDArray = slice(None)) -> NDArray[np.float32]:
    """(n, V, 3) m, camera frame, transl included: the meshes of the chosen rows. They take 80 KB a frame."""
    with torch.no_grad():
        output = body(torch.from_numpy(motion.rotmats[rows]), torch.from_numpy(motion.betas[rows]))
    return output.vertices.numpy() + motion.transl[rows][:, None]


def crop_boxes(bbox: NDArray[np.float32], crop_scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes (N, 4) and crop scales (N,) -> (N, 3) centre x, centre y and side of the crops, px."""
    return np.concatenate((bbox[:, :2], (bbox[:, 2] * crop_scale)[:, None]), axis=1)
