"""A person's features and landmarks in; the body at every frame out: the model's output, fitted to the landmarks.

N frames of the person. One piece of the result is in memory at a time; the model's output waits in a spool.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from glot.human.body import Body
from glot.human.camera import crop_cam, full_image_translation
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.crop_rules import CropRule
from glot.human.joints import BETAS, JOINTS
from glot.models.prediction.track_predictors import TrackPredictor
from glot.models.smpl_params import SMPLParams
from glot.motion.camera_fit import CAMERA_PAIRS, LEAST_VISIBLE, fit_cameras, steady_cameras
from glot.motion.person_motion import Motion, crop_boxes, default_focal, make_motion
from glot.motion.pose_fit import CONTEXT, POSE_PAIRS, fit_poses
from glot.motion.smoothing import Smoother
from glot.people.landmarks import LANDMARK_NAMES, Person
from glot.people.spool import Spool
from glot.people.video import Timeline

SQUARE = CropRule()
PIECE = 256  # frames of a piece
LANDMARK_ROWS = [LANDMARK_NAMES.index(name) for _, name in CAMERA_PAIRS]
FIT_ROWS = [LANDMARK_NAMES.index(name) for _, name in POSE_PAIRS]
SMPL_ROWS = [joint for joint, _ in CAMERA_PAIRS]


def crop_scales(person: Person, rule: CropRule) -> NDArray[np.float32]:
    """(N,) side of the backbone's crops of a person / width of the boxes."""
    if rule.follows_dataset:
        return np.full(len(person), DEFAULT_CROP_SCALE, np.float32)
    return rule.scales(person.bbox).astype(np.float32)


class Reconstruction:
    """Turns features into bodies, in one video.

    ``timeline`` is the video's. ``fit`` is one of glot.capture.capture_options.FITS. ``focal`` is in px; None stands
    for the default for pictures of this size. ``rule``: how the backbone's crops were made.
    """

    def __init__(
        self,
        model: TrackPredictor,
        body: Body,
        timeline: Timeline,
        *,
        fit: str = "limbs",
        smooth: bool = False,
        focal: float | None = None,
        rule: CropRule = SQUARE,
    ) -> None:
        self.model, self.body, self.fit, self.smooth, self.rule = model, body, fit, smooth, rule
        self.fps, self.width, self.height = timeline.fps, timeline.width, timeline.height
        self.focal = focal or default_focal(self.width, self.height)

    def __call__(self, person: Person, features: Callable[[NDArray[np.intp]], NDArray]) -> Iterator[Motion]:
        """The body at every frame, in consecutive pieces. ``features(rows (n,))`` returns their features (n, F)."""
        crop_scale = crop_scales(person, self.rule)
        crops = crop_boxes(person.bbox, crop_scale)
        smoother = Smoother(self.body) if self.smooth else None
        with Spool([len(person)], JOINTS * 9 + BETAS) as predictions:
            # Cameras are smoothed over the whole track, so they are needed before the first body.
            cam = self._predict(person, features, crops, predictions)
            for start in range(0, len(person), PIECE):
                rows = slice(start, min(start + PIECE, len(person)))
                if self.fit == "limbs":
                    params = self._fitted(person, rows, crops, cam, predictions)
                else:
                    params = _predicted_rows(predictions, cam, rows)
                piece = make_motion(
                    params,
                    self.body,
                    person=person.name,
                    frames=person.frames[rows],
                    bbox=person.bbox[rows],
                    crop_scale=crop_scale[rows],
                    fps=self.fps,
                    width=self.width,
                    height=self.height,
                    seen=person.seen[rows],
                    scores=person.scores[rows],
                    focal=self.focal,
                )
                yield smoother(piece) if smoother else piece

    @torch.no_grad()
    def _predict(
        self,
        person: Person,
        features: Callable[[NDArray[np.intp]], NDArray],
        crops: NDArray[np.float32],
        predictions: Spool,
    ) -> NDArray[np.float32]:
        """Puts rotations and shapes into ``predictions``; returns the cameras (N, 3), fitted unless ``fit`` is none."""
        cam, fitted = np.zeros((len(person), 3), np.float32), np.full((len(person), 3), np.nan)
        start = 0
        for part in self.model.batches(features, len(person)):
            rows = slice(start, start + len(part.cam))
            start = rows.stop
            cam[rows] = part.cam.numpy()
            for row, values in enumerate(torch.cat([part.rotmats.flatten(1), part.betas], dim=1).numpy(), rows.start):
                predictions.put(0, row, values)
            if self.fit != "none":
                joints = self.body.smpl_joints(part.rotmats, part.betas)[:, SMPL_ROWS].numpy()
                fitted[rows] = fit_cameras(
                    joints,
                    person.landmarks(rows)[:, LANDMARK_ROWS],
                    cam[rows],
                    boxes=crops[rows],
                    width=self.width,
                    height=self.height,
                    focal=self.focal,
                )
        return cam if self.fit == "none" else steady_cameras(fitted, cam, fps=self.fps)

    def _fitted(
        self, person: Person, rows: slice, crops: NDArray[np.float32], cam: NDArray[np.float32], predictions: Spool
    ) -> SMPLParams:
        """The bodies of some rows, with their limbs fitted to the landmarks."""
        around = slice(max(rows.start - CONTEXT, 0), min(rows.stop + CONTEXT, len(person)))
        params, boxes = _predicted_rows(predictions, cam, around), torch.from_numpy(crops[around])
        width, height = self.width, self.height
        landmarks = torch.from_numpy(person.landmarks(around)[:, FIT_ROWS])
        landmarks[..., 2] *= landmarks[..., 2] >= LEAST_VISIBLE
        rotmats, places = fit_poses(
            params.rotmats,
            params.betas,
            full_image_translation(params.cam, boxes, width=width, height=height, focal=self.focal),
            landmarks,
            torch.from_numpy(person.bbox[around, 2]),
            body=self.body,
            size=(width, height),
            focal=self.focal,
            fps=self.fps,
        )
        cams = crop_cam(places, boxes, width=width, height=height, focal=self.focal)
        kept = slice(rows.start - around.start, rows.stop - around.start)
        return SMPLParams(rotmats[kept], params.betas[kept], cams[kept])


def _predicted_rows(predictions: Spool, cam: NDArray[np.float32], rows: slice) -> SMPLParams:
    values = torch.from_numpy(predictions.take(0, np.arange(rows.start, rows.stop)))
    rotmats, betas = values.split((JOINTS * 9, BETAS), dim=1)
    return SMPLParams(rotmats.unflatten(1, (JOINTS, 3, 3)), betas, torch.from_numpy(cam[rows]))
