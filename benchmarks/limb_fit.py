"""The 3D errors with and without fitting bodies to BlazePose's 2D landmarks, on renders, whose truth is known.

Prints and writes benchmarks/out/limb_fit.json: ``{"none": {…}, "camera": {…}, "limbs": {…}}``, mm and mm per frame
squared. The feature set must be extracted with ``--backbone blazepose``: its features contain the landmarks.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from figures import OUT, write_figures
from numpy.typing import NDArray

from glot import cli
from glot.capture.capture_options import FITS
from glot.capture.reconstruction import Reconstruction
from glot.errors import InputError
from glot.features.backbones.blazepose import POINTS, UNITS
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.models.inference import load_model_for
from glot.models.smpl_params import SMPLParams
from glot.motion.person_motion import joined
from glot.people.landmarks import LANDMARKS, Person
from glot.people.spool import Spool
from glot.people.video import Timeline
from glot.scoring.track_errors import score, track_truth

NAMES = ("mpjpe", "pa_mpjpe", "accel")


def main(
    features: Annotated[Path, typer.Argument(help="A feature set: FEATURES/DATASET/SPLIT.")],
    checkpoint: Annotated[Path, typer.Option(help="A model for BlazePose's features.")] = Path("open"),
    size: Annotated[int, typer.Option(help="Width and height of the pictures, px.")] = 480,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "limb_fit.json",
) -> None:
    """Reconstruct every track of a feature set with each choice of ``glot.predict --fit``."""
    store, body = FeatureStore.open(features), load_body()
    if store.manifest.backbone["name"] != "blazepose":
        raise InputError(
            f"{features}: features of {store.manifest.backbone['name']} contain no landmarks; give a set of blazepose"
        )
    model = load_model_for(checkpoint, store.manifest).model
    errors: dict[str, dict[str, list[NDArray]]] = {fit: {name: [] for name in NAMES} for fit in FITS}
    for track in cli.progress(store.tracks, total=len(store.tracks), what="fitting"):
        truth = track_truth(store, track, body)
        rows, count = truth.rows, len(truth.rows)
        line = Timeline(count, float(store.fps[rows[0]]), True, size, size)
        side = store.bbox[rows, 2] * store.crop_scale[rows]
        landmarks = landmarks_of(store.features_of(rows), store.bbox[rows, :2], side)
        with Spool([count], landmarks[0].size) as spool:
            for row, values in enumerate(landmarks):
                spool.put(0, row, values.ravel())
            one = np.ones(count, np.float32)
            person = Person("1", np.arange(count), store.bbox[rows], one > 0, one, spool, 0, 0)
            for fit in FITS:
                make = Reconstruction(model, body, line, fit=fit)
                motion = joined(list(make(person, lambda chosen, these=rows: store.features_of(these[chosen]))))
                params = SMPLParams(*map(torch.from_numpy, (motion.rotmats, motion.betas, motion.cam)))
                found = score(params, truth, body, frames=model.config.frames)["corrected"]
                for name in NAMES:
                    errors[fit][name].append(1000 * found[name])
    figures = {
        fit: {name: round(float(np.concatenate(values).mean()), 1) for name, values in by_name.items()}
        for fit, by_name in errors.items()
    }
    write_figures(out, figures)


def landmarks_of(features: NDArray, centres: NDArray, side: NDArray) -> NDArray[np.float32]:
    """(N, J, 3) x, y px of the picture and visibility, from the features (N, F) of crops with ``centres`` (N, 2) px and
    ``side`` lengths (N,) px."""
    points = features[:, : 5 * POINTS].reshape(-1, POINTS, 5)[:, list(LANDMARKS.values())].astype(np.float64)
    pixels = centres[:, None] + points[..., :2] * side[:, None, None] / 2
    visibility = 1 / (1 + np.exp(-points[..., 3:4] / UNITS[3]))
    return np.concatenate([pixels, visibility], axis=2).astype(np.float32)


if __name__ == "__main__":
    cli.run(main)
