"""Predictions for the tracks of a feature set in; MPJPE, PA-MPJPE, MPVPE and Accel out, overall and of each track.

N frames of a track, J joints, V vertices. Errors are mm (Accel: mm / frame^2), averaged over frames, not tracks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.schema import Manifest, open_part, parts
from glot.features.store import FeatureStore, Track
from glot.features.windows import PROTOCOLS, check_protocol
from glot.human.body import Body, require_body
from glot.models.checkpoint import Checkpoint
from glot.models.inference import predict_track
from glot.models.prediction.track_predictors import track_predictor
from glot.models.smpl_params import SMPLParams
from glot.models.temporal_model import TemporalModel
from glot.scoring.metric_names import METRICS
from glot.scoring.track_errors import is_scored, score, track_truth

# Features (N, F) of a track -> the bodies of its N frames in order, or only the truth's joints of them (N, J, 3).
Predictor = Callable[[NDArray[np.float32]], SMPLParams | NDArray[np.float64]]
Inputs = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # rows (N,) of the store -> (N, ...)
SHARED_FRAMES = 16  # of the windows of all models in the paper's tables but MEVA
# Track id -> protocol -> errors of its frames in metres, see glot.scoring.track_errors.score; {} for a skipped track.
Scores = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Evaluation:
    """``metrics``: METRICS -> mean over all frames, mm. ``per_track``: track_id, frames and metrics of each track."""

    protocol: str
    metrics: dict[str, float]
    frames: int
    tracks: int
    skipped_tracks: list[str] = field(default_factory=list)  # shorter than a window, or without ground truth
    per_track: list[dict[str, Any]] = field(default_factory=list)


def evaluate_split(
    model: TemporalModel,
    store: FeatureStore,
    body: Body,
    *,
    protocol: str = "corrected",
    batch_size: int = 64,
    vertices: bool = False,
    tracks: Sequence[Track] | None = None,
    together: Callable[[Scores], Scores] = lambda scores: scores,
) -> Evaluation:
    """Errors of ``model`` on all tracks of ``store``. MPVPE only with ``vertices``: it takes longer than all the rest.

    Several processes may share the work: each gives its own ``tracks``, and ``together`` returns the scores of all of
    them. The result is the same to the last digit, because means are taken over the same frames in the same order.

    InputError where no track has both the length of a window and ground truth.
    """
    mine = score_tracks(
        model_predictor(model, batch_size=batch_size),
        store,
        body,
        tracks=store.tracks if tracks is None else tracks,
        frames=rows_needed(model.config),
        protocols=(protocol,),
        vertices=vertices,
    )
    return summary(together(mine), store, protocols=(protocol,), frames=rows_needed(model.config))[protocol]


def rows_needed(config: Any) -> int:
    """How many rows a track needs to be scored with a model of this configuration: those of a window.

    At most 16 for models that answer for all frames of a window, so that MEVA, whose windows have 90 frames, is scored
    on the same tracks as the others. (The last row of a track that is shorter than its window repeats.)
    """
    frames: int = config.frames
    return min(frames, SHARED_FRAMES) if config.kind in ("vibe", "meva") else frames


def model_predictor(model: TemporalModel, *, batch_size: int = 64) -> Predictor:
    """A predictor that runs ``model``, as it is now, on a track, ``batch_size`` windows at a time."""
    predictor = track_predictor(model)
    return lambda features: predict_track(predictor, features, batch_size=batch_size)


def evaluate_predictor(
    predict: Predictor,
    store: FeatureStore,
    body: Body,
    *,
    frames: int,
    protocols: Sequence[str] = PROTOCOLS,
    vertices: bool = True,
    what: str = "",
    true_bodies: Mapping[str, Body] | None = None,
    inputs: Inputs | None = None,
) -> dict[str, Evaluation]:
    """The evaluation of a predictor by each protocol; it predicts once. Tracks with under ``frames`` rows are skipped.

    The truth uses ``body`` as the prediction does, or the body in ``true_bodies`` for the gender of a track's person.
    ``inputs(rows)`` is what the predictor gets of a track; its features by default.
    ``what`` is the title of the progress report; without a title, no progress is shown.

    "official" differs from "corrected" in two ways:
    - the last predictions of each track are in another order (glot.features.windows.prediction_order);
    - accelerations are computed across gaps in time, too.

    InputError for an unknown protocol, and where every track is skipped.
    """
    scores = score_tracks(
        predict,
        store,
        body,
        tracks=store.tracks,
        frames=frames,
        protocols=protocols,
        vertices=vertices,
        what=what,
        true_bodies=true_bodies,
        inputs=inputs,
    )
    return summary(scores, store, protocols=protocols, frames=frames)


def score_tracks(
    predict: Predictor,
    store: FeatureStore,
    body: Body,
    *,
    tracks: Sequence[Track],
    frames: int,
    protocols: Sequence[str],
    vertices: bool,
    what: str = "",
    true_bodies: Mapping[str, Body] | None = None,
    inputs: Inputs | None = None,
) -> Scores:
    """The errors of a predictor in all frames of ``tracks``, see ``evaluate_predictor``."""
    for protocol in protocols:
        check_protocol(protocol)
    scores: Scores = {}
    genders, inputs = genders_of(store) if true_bodies else {}, inputs or store.features_of
    tracks = sorted(tracks)
    for track in cli.progress(tracks, total=len(tracks), what=what) if what else tracks:
        if not is_scored(store, track, frames=frames):
            scores[track.track_id] = {}
            continue
        truth = track_truth(store, track, (true_bodies or {}).get(genders.get(track.track_id, ""), body))
        scores[track.track_id] = score(
            predict(inputs(truth.rows)), truth, body, frames=frames, protocols=protocols, vertices=vertices
        )
    return scores


def summary(scores: Scores, store: FeatureStore, *, protocols: Sequence[str], frames: int) -> dict[str, Evaluation]:
    """The evaluation by each protocol from the scores of all tracks of ``store``; InputError if all are skipped."""
    ids = [track.track_id for track in sorted(store.tracks)]
    skipped = [track_id for track_id in ids if not scores[track_id]]
    if len(skipped) == len(ids):
        raise nothing_to_score(store, frames)
    return {
        protocol: _summary(
            protocol,
            [{"track_id": track_id, **scores[track_id][protocol]} for track_id in ids if scores[track_id]],
            skipped,
        )
        for protocol in protocols
    }


def check_truth(store: FeatureStore, *, frames: int) -> None:
    """InputError unless ``store`` has a track that is not skipped. It reads labels, and computes nothing."""
    if not any(is_scored(store, track, frames=frames) for track in store.tracks):
        raise nothing_to_score(store, frames)


def nothing_to_score(store: FeatureStore, frames: int) -> InputError:
    """The error for a set in which every track is skipped."""
    return InputError(
        f"{store.folder}: none of its {len(store.tracks)} tracks has ground truth and the {frames} frames of a window; "
        "evaluate a longer or an annotated split"
    )


def _summary(protocol: str, found: list[dict[str, Any]], skipped: list[str]) -> Evaluation:
    """Averages over all frames of all tracks, and per track; metres become mm."""
    per_track = [
        {"track_id": track["track_id"], "frames": len(track["frame_index"]), **_means([track])} for track in found
    ]
    frames = sum(row["frames"] for row in per_track)
    return Evaluation(protocol, _means(found), frames, len(found), list(skipped), per_track)


def _means(tracks: list[dict[str, Any]]) -> dict[str, float]:
    out = {}
    for name in METRICS:
        values = np.concatenate([track[name] for track in tracks if name in track] or [np.empty(0)])
        if len(values):
            out[name] = 1000 * float(values.mean())
    return out


def genders_of(store: FeatureStore) -> dict[str, str]:
    """The gender that the dataset gives for each track's person, by track_id."""
    found: dict[str, str] = {}
    for part in parts(store.folder, store.manifest):
        with open_part(part, store.manifest.row_schema) as file:
            columns = file.read(columns=["track_id", "gender"]).to_pydict()
        found.update(zip(columns["track_id"], columns["gender"], strict=True))
    return found


def check_body(saved: Checkpoint, manifest: Manifest, body: Body) -> None:
    """InputError where ``body`` is the open body and the features or the model were made with SMPL, or the reverse."""
    require_body(body, manifest.body, f"features {manifest.dataset}/{manifest.split}")
    require_body(body, saved.info["body"], "model")
