"""A checkpoint and the features of a person's track in; SMPL parameters of every frame out.

N frames of a track, T frames of a window, F feature size.
"""

from pathlib import Path

import torch
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import Manifest
from glot.features.windows import prediction_order
from glot.models.checkpoint import Checkpoint, check_features, load_checkpoint
from glot.models.prediction.track_predictors import TrackPredictor, track_predictor
from glot.models.released.peer_files import peer_notes
from glot.models.released.published_files import load_published
from glot.models.smpl_params import SMPLParams
from glot.models.spec import OPEN_CHECKPOINT, is_open_checkpoint
from glot.models.temporal_model import TemporalModel
from glot.shipped import shipped_folder

# Models that come with the project, by the backbone of their features.
OPEN_MODELS = {"resnet50": "glot_open", "blazepose": "glot_video"}


def checkpoint_path(named: Path, backbone: str = "resnet50") -> Path:
    """The path of the checkpoint ``named`` in an option.

    "open" is the checkpoint that comes with the project for features of ``backbone``; InputError where there is none,
    and where its files are missing (see ``glot.shipped``).
    """
    if not is_open_checkpoint(named):
        return named
    if backbone not in OPEN_MODELS:
        raise InputError(
            f"{OPEN_CHECKPOINT}: the models that come with the project take features of {' or '.join(OPEN_MODELS)}, "
            f"these are of {backbone}; train a model on them with python -m glot.train_ray"
        )
    return shipped_folder(OPEN_MODELS[backbone])


def load_model(path: Path, backbone: str = "resnet50") -> Checkpoint:
    """The checkpoint at ``path``: a folder of this project, a published .pth.tar file, or "open" (``checkpoint_path``).

    ``info["notes"]``: what a user has to know about the model, one line each. InputError where there is no checkpoint.
    """
    path = checkpoint_path(path, backbone)
    if path.is_file():
        return load_published(path)
    if not path.is_dir():
        raise InputError(f"--checkpoint {path}: there is no such folder; train one with python -m glot.train_ray")
    saved = load_checkpoint(path)
    saved.info["notes"] = peer_notes(saved.model)
    return saved


def load_model_for(path: Path, manifest: Manifest) -> Checkpoint:
    """``load_model``; InputError unless the model was trained on features of the same backbone as the manifest's.

    A published checkpoint does not record its backbone, so only the size of its features is checked.
    """
    path = checkpoint_path(path, manifest.backbone["name"])
    saved = load_model(path)
    if path.is_dir():
        check_features(saved, manifest)
        return saved
    size = manifest.backbone["feature_size"]
    if size != saved.model.config.feature_size:
        name = manifest.backbone["name"]
        raise InputError(
            f"{path}: takes {saved.model.config.feature_size} numbers a frame, features of {name} have {size}"
        )
    return saved


def print_notes(saved: Checkpoint) -> None:
    """Prints what a user has to know about the model of ``load_model``; mostly there is nothing."""
    for note in saved.info["notes"]:
        print(note, flush=True)


def predict_track(
    model: TemporalModel | TrackPredictor,
    features: NDArray,
    *,
    protocol: str = "corrected",
    local: bool = True,
    batch_size: int = 64,
) -> SMPLParams:
    """features (N, F) -> SMPLParams of N frames on the CPU: rotmats (N, 24, 3, 3), betas (N, 10), cam (N, 3).

    N may be 1: glot.models.prediction.track_predictors says how each model cuts a track into windows.
    ``protocol="official"`` returns the last T/2 - 1 frames in reversed order, as GLoT's released evaluation does.
    ``local=False`` returns the estimate of GLoT's global branch, without the correction by the local branch. Runs on
    the device of the model.

    For many tracks, make a ``track_predictor`` of the model once and give it; then ``local`` is not used.
    """
    predictor = model if isinstance(model, TrackPredictor) else track_predictor(model, local=local)
    batches = predictor.batches(lambda rows: features[rows], len(features), batch_size=batch_size)
    order = torch.from_numpy(prediction_order(len(features), predictor.frames, protocol=protocol))
    return SMPLParams(*(torch.cat(parts)[order] for parts in zip(*batches, strict=True)))
