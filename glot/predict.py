"""A checkpoint and the features of a person's track in, SMPL parameters of every frame out.

N frames of a track, T frames of a window, F feature size.
"""

from pathlib import Path

import torch
from numpy.typing import NDArray

from glot.checkpoint import Checkpoint, check_features, load_checkpoint, load_official
from glot.errors import InputError
from glot.model import GLoT, SMPLParams
from glot.schema import Manifest
from glot.windows import prediction_order


def load_model_for(path: Path, manifest: Manifest) -> Checkpoint:
    """The checkpoint at ``path``, our folder or a published .pth.tar file; InputError if the features do not suit it.

    Nobody recorded which weights made the features of a published model, so only their size is checked there.
    """
    if not path.is_file():
        if not path.is_dir():
            raise InputError(f"--checkpoint {path}: there is no such folder; train one with python -m glot.train_ray")
        saved = load_checkpoint(path)
        check_features(saved, manifest)
        return saved
    saved = load_official(path)
    size = manifest.backbone["feature_size"]
    if size != saved.model.config.feature_size:
        raise InputError(f"{path}: takes {saved.model.config.feature_size} numbers a frame, the features have {size}")
    return saved


@torch.no_grad()
def predict_track(model: GLoT, features: NDArray, *, protocol: str = "corrected", batch_size: int = 64) -> SMPLParams:
    """features (N, F) -> SMPLParams of N frames on the CPU: rotmats (N, 24, 3, 3), betas (N, 10), cam (N, 3).

    Frame i is the middle one of the model's answer to the window around it; beyond the ends of the track its first and
    last row repeat, so any N >= 1 will do. ``protocol="official"`` returns the last T/2 - 1 frames in reversed order,
    as the released evaluation does. Runs on the device of the model, whose training mode is left as it was.
    """
    frames, device = model.config.frames, next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        batches = [
            model.predict(_windows(features, start, min(start + batch_size, len(features)), frames, device))
            for start in range(0, len(features), batch_size)
        ]
    finally:
        model.train(training)
    order = torch.from_numpy(prediction_order(len(features), frames, protocol=protocol))
    return SMPLParams(*(torch.cat(parts).cpu()[order] for parts in zip(*batches, strict=True)))


def _windows(features: NDArray, start: int, stop: int, frames: int, device: torch.device) -> torch.Tensor:
    """(stop - start, T, F) windows around rows start ... stop - 1, as an overlapping view of the rows they share."""
    first = start - frames // 2
    rows = torch.arange(first, stop - frames // 2 + frames - 1).clamp(0, len(features) - 1)
    slab = torch.from_numpy(features[rows.numpy()]).to(device)  # moves each row once, not T times
    return slab.unfold(0, frames, 1).transpose(1, 2)
