"""TCMR, MPS-Net, VIBE or MEVA and a feature set in; the errors by the model's own released evaluation out.

N rows of a track, T frames of a window, A rows that are answered, J joints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body
from glot.models.prediction.track_predictors import predicted
from glot.models.smpl_params import SMPLParams
from glot.models.temporal_model import TemporalModel
from glot.scoring.evaluation import Evaluation, Scores, genders_of, summary
from glot.scoring.metric_names import PREDICTED_ACCEL
from glot.scoring.metrics import accel_error
from glot.scoring.official_protocols import OFFICIAL, OfficialWindows
from glot.scoring.track_errors import joint_errors, predicted_joints, track_truth, vertex_errors


class Joined(NamedTuple):
    """A track whose accelerations are computed together with those of the others."""

    predicted: NDArray[np.float64]  # (A, J, 3) metres
    true: NDArray[np.float64]  # (A, J, 3)
    pelvis: tuple[int, ...]  # indices among the J joints; their mean is the pelvis


def evaluate_officially(
    model: TemporalModel,
    store: FeatureStore,
    body: Body,
    *,
    batch_size: int = 64,
    vertices: bool = True,
    what: str = "",
    true_bodies: Mapping[str, Body] | None = None,
) -> Evaluation:
    """The evaluation of a model other than GLoT by the protocol of its release (glot.scoring.official_protocols).

    Predictions are in order, and accelerations are computed across gaps in time. For VIBE they are computed over all
    tracks joined; ``metrics`` then also has the mean acceleration of the predictions themselves. The other options are
    those of glot.scoring.evaluation.evaluate_predictor. InputError where every track is skipped.
    """
    frames, protocol = model.config.frames, OFFICIAL[model.config.kind]
    check_answers(model)
    scores: Scores = {}
    joined: list[Joined] = []
    genders, tracks = genders_of(store) if true_bodies else {}, sorted(store.tracks)
    for track in cli.progress(tracks, total=len(tracks), what=what) if what else tracks:
        scores[track.track_id] = {}
        true_body = (true_bodies or {}).get(genders.get(track.track_id, ""), body)
        truth = track_truth(store, track, true_body, counts_invalid=protocol.counts_invalid)
        if len(truth.rows) < frames or not truth.scored.any():
            continue
        found = protocol.cut(len(truth.rows), frames)
        bodies = official_bodies(model, store.features_of(truth.rows), found, batch_size=batch_size)
        truth = truth.at(found.rows)
        joints = predicted_joints(body, bodies, truth)
        errors = joint_errors(joints, truth, across_gaps=True)
        if vertices and truth.smpl is not None:
            errors["mpvpe"] = vertex_errors(body, bodies, truth, np.arange(len(joints)))
        scores[track.track_id] = {"official": errors}
        if protocol.joins_tracks:
            joined.append(Joined(joints, truth.joints, truth.pelvis))
    result = summary(scores, store, protocols=("official",), frames=frames)["official"]
    return replace(result, metrics=result.metrics | joined_accelerations(joined)) if joined else result


def joined_accelerations(joined: Sequence[Joined]) -> dict[str, float]:
    """Of all tracks, as if they were one: the acceleration error, and the mean acceleration of the predictions.

    mm / frame^2. Where one track ends and the next one begins, people jump.
    """
    pelvis = joined[0].pelvis
    pred, true = (np.concatenate([getattr(each, name) for each in joined]) for name in ("predicted", "true"))
    return {
        "accel": 1000 * float(accel_error(pred, true, pelvis=pelvis).mean()),
        PREDICTED_ACCEL: 1000 * float(accel_error(pred, np.zeros_like(pred), pelvis=pelvis).mean()),
    }


def official_bodies(
    model: TemporalModel, features: NDArray[np.float32], found: OfficialWindows, *, batch_size: int
) -> SMPLParams:
    """The bodies (A, ...) of the answered rows, on the CPU. ``features`` (N, F): of the track's rows."""
    # Only where windows depend on their neighbours in the batch, the batch has to be that of the release.
    size = found.batch if getattr(model.config, "similarities", "") == "official" else batch_size
    parts = [
        predicted(model, torch.from_numpy(features[windows]).to(model.mean.device))
        for windows in np.split(found.windows, range(size, len(found.windows), size))
    ]
    whole = [torch.cat(values).cpu() for values in zip(*parts, strict=True)]
    return SMPLParams(*(values[found.window, found.frame - model.answered_frames.start] for values in whole))


def check_answers(model: TemporalModel) -> None:
    """InputError for a model whose only answer is not for the middle frame, because its windows would be other ones."""
    answered, frames = model.answered_frames, model.config.frames
    if len(answered) < frames and answered.start != frames // 2:
        raise InputError(
            f"--protocol official: this model answers for frame {answered.start} of {frames}, not for the middle one; "
            "evaluate it with --protocol corrected"
        )
