"""A model or a feature set in; predictors that a trained model is compared with out.

The predictors are the mean pose, a linear map of single frames, and the same model with random weights.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.moments import ROWS_AT_ONCE
from glot.features.schema import guess_columns, is_feature_set
from glot.features.store import FeatureStore
from glot.human.body import Body
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.architectures import build
from glot.models.smpl_params import SMPLParams, to_params
from glot.models.temporal_model import TemporalModel
from glot.scoring.evaluation import Predictor
from glot.scoring.linear_probe import LinearProbe
from glot.scoring.metrics import centred
from glot.scoring.track_errors import track_truth


def mean_pose_predictor(model: TemporalModel) -> Predictor:
    """Predicts for every frame the mean pose, shape and camera that the model starts from; ignores the features."""
    mean = to_params(model.mean.cpu().view(1, 1, -1))

    def predict(features: NDArray[np.float32]) -> SMPLParams:
        return SMPLParams(*(values[0].expand(len(features), *values.shape[2:]) for values in mean))

    return predict


def guessed_bodies(guess: NDArray[np.float32]) -> SMPLParams:
    """The bodies of first guesses (N, GUESS_SIZE) that a backbone made frame by frame."""
    pose, betas, cam = (torch.from_numpy(values) for values in guess_columns(guess).values())
    return SMPLParams(axis_angle_to_rotmat(pose), betas, cam)


def untrained_model(model: TemporalModel, *, seed: int) -> TemporalModel:
    """A model of the same configuration and mean body, with weights drawn from ``seed``.

    With the seed of its recipe, a model that was trained from random weights started from these.
    """
    torch.manual_seed(seed)
    return build(model.config, model.mean.cpu()).to(model.mean.device)


def linear_predictor(folder: Path, body: Body) -> Predictor:
    """A linear map from each frame's features to its joints, fitted on the "train" split below ``folder``.

    Its regularisation is chosen on "validation". InputError where one of them is missing or has no ground truth.
    """
    splits = (folder / "train", folder / "validation")
    for split in splits:
        if not is_feature_set(split):
            raise InputError(f"--probe learns on {split}, which is not there; extract it, or leave --probe out")
    return LinearProbe(*(_labelled_frames(split, body) for split in splits))


def _labelled_frames(folder: Path, body: Body) -> Iterator[tuple[NDArray, NDArray]]:
    """Features (n, F) and joints (n, J, 3), metres from the pelvis, of all frames with ground truth, in blocks."""
    store, found = FeatureStore.open(folder), False
    for track in store.tracks:
        truth = track_truth(store, track, body)
        rows, joints = truth.rows[truth.scored], centred(truth.joints, truth.pelvis)[truth.scored]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block, found = slice(start, start + ROWS_AT_ONCE), True
            yield store.features_of(rows[block]), joints[block]
    if not found:
        raise InputError(f"{folder}: --probe learns from ground truth, and no frame has any")
