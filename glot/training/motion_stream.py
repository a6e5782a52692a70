"""Sets of real motions and the number of a step in, the motions that the discriminator sees in that step out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glot.errors import InputError
from glot.features.motion_sets import MotionSet
from glot.training.sampler import Stream, WindowSet

STREAM = 2  # part of the seed; the streams of 2D and 3D sets have 0 and 1 in this place


class MotionStream:
    """One rank's share of the real motions of each step. The number of a step alone decides its motions.

    Windows of ``frames`` rows, side by side in their motions, in shuffled passes over all sets. InputError where no
    motion is as long as a window.
    """

    def __init__(
        self, files: Sequence[Path], *, frames: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.frames, self.batch_size, self.rank, self.world = frames, batch_size, rank, world
        sets = [MotionSet.open(file) for file in files]
        windows = [WindowSet(motions, motions.windows(frames), is_3d=True, use_smpl=True) for motions in sets]
        self.stream = Stream(windows, seed=seed, stream=STREAM)
        if not len(self.stream):
            raise InputError(
                f"{', '.join(map(str, files))}: no motion has {frames} frames; add longer motions, or shorten "
                "model.frames"
            )

    def __call__(self, step: int) -> Tensor:
        """The axis-angles of joints 1 ... 23 of this rank's motions (n, T, 69), rad."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.rank :: self.world]
        poses = [motions.store.read(starts, self.frames) for motions, starts, _ in self.stream.take(positions)]
        every = np.concatenate([np.empty((0, self.frames, 24, 3), np.float32), *poses])
        return torch.from_numpy(every[:, :, 1:]).flatten(-2)
