"""A model of fixed weights and the features of a track in; the body of every frame out.

How a track is cut into windows and put together again depends on which frames of a window the model answers for: the
middle one, or all. N frames of a track, T frames of a window, F feature size.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glot.features.windows import window_pieces
from glot.models.glot import GLoT
from glot.models.mps_net import MPSNet
from glot.models.prediction.frozen import windows_of
from glot.models.prediction.sliding import SlidingGLoT
from glot.models.prediction.sliding_mps_net import SlidingMPSNet
from glot.models.prediction.sliding_tcmr import SlidingTCMR
from glot.models.smpl_params import SMPLParams
from glot.models.tcmr import TCMR
from glot.models.temporal_model import TemporalModel

Read = Callable[[NDArray[np.intp]], NDArray]  # rows (n,) of a track -> their features (n, F)
OFFICIAL_BATCH = 8  # windows, in order, of the evaluation of TCMR and MPS-Net


class TrackPredictor(ABC):
    """Predicts the frames of tracks. It may hold copies of the weights: make a new one when they change."""

    def __init__(self, frames: int, device: torch.device) -> None:
        self.frames, self.device = frames, device  # T; where it expects features

    @abstractmethod
    def batches(self, read: Read, count: int, *, batch_size: int = 64) -> Iterator[SMPLParams]:
        """The bodies of a track's ``count`` frames in order, about ``batch_size`` frames at a time, on the CPU.

        Memory does not grow with the track. The same row may be read several times.
        """

    def _features(self, read: Read, rows: NDArray[np.intp]) -> Tensor:
        return torch.from_numpy(read(rows)).to(self.device)


class Sliding(Protocol):
    """Features (N + T - 1, F) of consecutive rows -> the bodies of the N rows from row ``middle`` on."""

    frames: int
    device: torch.device

    def __call__(self, rows: Tensor) -> SMPLParams: ...


class MiddlePredictor(TrackPredictor):
    """For a model that answers for one frame: there is a window around every frame of the track.

    Beyond the ends of the track, its first and last row repeat, so a track may have a single frame. ``batch``: the only
    number of windows that is predicted at once; 0: any.
    """

    def __init__(self, sliding: Sliding, middle: int, *, batch: int = 0) -> None:
        super().__init__(sliding.frames, sliding.device)
        self.sliding, self.middle, self.batch = sliding, middle, batch

    def batches(self, read: Read, count: int, *, batch_size: int = 64) -> Iterator[SMPLParams]:
        size = self.batch or batch_size
        for start in range(0, count, size):
            first, stop = start - self.middle, min(start + size, count) - self.middle + self.frames - 1
            rows = np.arange(first, stop).clip(0, count - 1)
            yield SMPLParams(*(values.cpu() for values in self.sliding(self._features(read, rows))))


class PlainSliding:
    """Every window by itself: for a model whose windows share nothing, or depend on their neighbours in the batch."""

    def __init__(self, model: TemporalModel) -> None:
        self.model, self.frames, self.device = model, model.config.frames, model.mean.device

    def __call__(self, rows: Tensor) -> SMPLParams:
        return SMPLParams(*(values[:, 0] for values in predicted(self.model, windows_of(rows, self.frames))))


@torch.no_grad()
def predicted(model: TemporalModel, windows: Tensor) -> SMPLParams:
    """``model.bodies(windows)`` in evaluation mode; the model is left in the mode that it has."""
    training = model.training
    try:
        return model.eval().bodies(windows)
    finally:
        model.train(training)


class WholePredictor(TrackPredictor):
    """For a model that answers for all frames of a window: windows side by side, with an ``overlap`` of some frames.

    The last row of a track that is shorter than a window repeats.
    """

    def __init__(self, model: TemporalModel, *, overlap: int) -> None:
        super().__init__(model.config.frames, model.mean.device)
        self.model, self.overlap = model, overlap

    def batches(self, read: Read, count: int, *, batch_size: int = 64) -> Iterator[SMPLParams]:
        pieces, at_once = window_pieces(count, self.frames, overlap=self.overlap), max(1, batch_size // self.frames)
        for number in range(0, len(pieces), at_once):
            some = pieces[number : number + at_once]
            first = some[0].start
            rows = self._features(read, np.arange(first, some[-1].start + self.frames).clip(0, count - 1))
            windows = torch.stack([rows[piece.start - first :][: self.frames] for piece in some])
            bodies = predicted(self.model, windows)
            taken = [slice(piece.first - piece.start, piece.stop - piece.start) for piece in some]
            yield SMPLParams(
                *(torch.cat([x[rows] for x, rows in zip(values.cpu(), taken, strict=True)]) for values in bodies)
            )


def track_predictor(model: TemporalModel, *, local: bool = True) -> TrackPredictor:
    """The fastest way to predict tracks with ``model`` as it is now.

    ``local=False``: the estimate of GLoT's global branch, without the correction by the local branch.
    """
    frames = model.config.frames
    if isinstance(model, GLoT):
        return MiddlePredictor(SlidingGLoT(model, local=local), frames // 2)
    if isinstance(model, TCMR):
        return MiddlePredictor(SlidingTCMR(model), frames // 2)
    if isinstance(model, MPSNet):
        if model.config.similarities == "official":
            return MiddlePredictor(PlainSliding(model), model.middle, batch=OFFICIAL_BATCH)
        return MiddlePredictor(SlidingMPSNet(model), model.middle)
    # A frame in the middle of the overlap of two windows is 5 frames from the end of both, as in MEVA's release.
    return WholePredictor(model, overlap=2 * (frames // 18) if model.config.kind == "meva" else 0)
