"""The distance of a video's predicted joints from BlazePose's 2D landmarks, as a share of the box's side.

Prints and writes benchmarks/out/reprojection.json: ``{"limbs": {…}, "camera": {…}, "none": {…}}``. For limbs, poses and
cameras are fitted to these landmarks; for camera, only cameras (three numbers for the 24 coordinates of a frame); for
none, nothing. Shoulders, elbows, wrists, hips, knees and ankles count if their visibility and the person's score are
high.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from figures import OUT, write_figures

from glot import cli
from glot.capture.capture import extract
from glot.capture.capture_options import FITS, CaptureOptions
from glot.capture.reconstruction import LANDMARK_ROWS, SMPL_ROWS, Reconstruction
from glot.capture.studio import Studio
from glot.errors import InputError
from glot.motion.camera_fit import CAMERA_PAIRS
from glot.motion.person_motion import joined
from glot.people.footage import Footage
from glot.people.landmarks import LANDMARK_NAMES, find_landmarks, spool_for
from glot.people.spool import Spool
from glot.people.tracks import detect_tracks

SURE = 0.8  # a frame counts if the person's score is above this
VISIBLE = 0.5  # a landmark counts if its visibility is above this


def main(
    video: Annotated[Path, typer.Argument(help="A video of people.")],
    checkpoint: Annotated[Path, typer.Option(help="A model for BlazePose's features.")] = Path("open"),
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "reprojection.json",
) -> None:
    """Reconstruct all people in a video and compare their joints in the picture with the landmarks."""
    studio, footage = Studio(CaptureOptions(checkpoint=checkpoint)), Footage(video)
    tracks, _ = detect_tracks(footage, studio.detector)
    errors: dict[str, list[np.ndarray]] = {fit: [] for fit in FITS}
    with ExitStack() as stack:
        people, _ = find_landmarks(footage, tracks, studio.landmarks, stack.enter_context(spool_for(tracks)))
        if not people:
            raise InputError(f"{video}: nobody was found in it; give a video of people")
        features = stack.enter_context(Spool([len(person) for person in people], studio.backbone.feature_size))
        extract(footage, people, studio, features)
        for fit in FITS:
            make = Reconstruction(studio.checkpoint.model, studio.body, footage.timeline, fit=fit)
            for number, person in enumerate(people):
                motion = joined(list(make(person, partial(features.take, number))))
                points = person.landmarks()[:, LANDMARK_ROWS]
                off = np.linalg.norm(motion.keypoints2d[:, SMPL_ROWS] - points[..., :2], axis=-1)
                counted = (person.scores > SURE)[:, None] & (points[..., 2] > VISIBLE)
                errors[fit].append(np.where(counted, off / person.bbox[:, 2:3], np.nan))
    figures = {fit: _figures(np.concatenate(values)) for fit, values in errors.items()}
    write_figures(out, figures)


def _figures(errors: np.ndarray) -> dict[str, object]:
    """Statistics of errors (N, J), NaN where there is no landmark."""
    names = [LANDMARK_NAMES[row] for row in LANDMARK_ROWS]
    assert len(names) == len(CAMERA_PAIRS)
    return {
        "frames": int(np.isfinite(errors).any(1).sum()),
        "median": round(float(np.nanmedian(errors)), 4),
        "90 %": round(float(np.nanpercentile(errors, 90)), 4),
        "median_by_joint": {
            name: round(float(np.nanmedian(column)), 4)
            for name, column in zip(names, errors.T, strict=True)
            if np.isfinite(column).any()
        },
    }


if __name__ == "__main__":
    cli.run(main)
