"""Feature stores and the number of a step in, the step's batch out: 2D and 3D sets mixed as the recipe says.

A stream is an endless sequence of windows: shuffled passes over the windows of its sets, one after the other. Any
position can be read directly, so the number of a step alone decides its windows. Rank r of ``world`` ranks takes the
windows r, r + world, r + 2 world, ... of a step. No two ranks take the same window, and a run can be continued at any
step without repeating the steps before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from glot.config import DataConfig
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.features.windows import training_windows
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.losses import Targets
from glot.training.batch_split import check_split, windows_of_kinds

# Mask noise decides which frames are hidden; feature noise is added to features.
MASK_NOISE, FEATURE_NOISE = 7, 8  # parts of their seeds; the streams have 0 and 1 in this place
SHARED = np.float32(0.8)  # weight of the feature noise that all frames of a window have in common


Store = TypeVar("Store")  # FeatureStore, or a MotionSet


@dataclass(frozen=True)
class WindowSet(Generic[Store]):
    """The training windows of one feature set, or of a set of motions."""

    store: Store
    starts: np.ndarray  # (n,) first row of every window
    is_3d: bool  # whether joints3d are used as targets
    use_smpl: bool  # whether pose and betas are used as targets


class Stream(Generic[Store]):
    """An endless sequence of shuffled windows. A set with more windows occurs more often, as in the official loader."""

    def __init__(self, sets: Sequence[WindowSet[Store]], *, seed: int, stream: int) -> None:
        self.sets = list(sets)
        self._seed = (seed, stream)
        self._bounds = np.cumsum([0, *(len(s.starts) for s in self.sets)])
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def _shuffled(self, number: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, number]).permutation(len(self))

    def take(self, positions: np.ndarray) -> list[tuple[WindowSet[Store], np.ndarray, np.ndarray]]:
        """(set, first rows, positions) of the windows at these positions, grouped by set, in order within a set.

        Where a pass ends within a batch, the rest of the batch comes from the next pass, so all batches have the same
        size. In the official loader, the last batch of a pass is smaller.
        """
        windows = np.array([self._order(int(p) // len(self))[int(p) % len(self)] for p in positions], dtype=np.int64)
        owner = np.searchsorted(self._bounds, windows, side="right") - 1
        picked = []
        for i, window_set in enumerate(self.sets):
            of_set = owner == i
            if of_set.any():
                picked.append((window_set, window_set.starts[windows[of_set] - self._bounds[i]], positions[of_set]))
        return picked


class Batch(NamedTuple):
    """A worker's share of a step: windows of 2D sets first, then windows of 3D sets."""

    features: Tensor  # (B, T, F)
    targets: Targets
    mask_noise: Tensor  # (B, T) uniform in [0, 1): decides which frames are hidden; does not depend on the rank


class Sampler:
    """One rank's share of the batches of a run. ``parts``: in how many parts the rank processes its share.

    Raises InputError where a batch has too few windows for the workers, or no track has enough frames.
    """

    def __init__(
        self,
        stores: dict[str, FeatureStore],
        config: DataConfig,
        *,
        frames: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
    ) -> None:
        self.frames, self.seed, self.rank, self.world, self.parts = frames, seed, rank, world, parts
        self.feature_noise = config.feature_noise  # standard deviation
        self.uses_invalid = config.invalid_frames == "official"
        check_split(config, world, parts=parts)
        self.counts = windows_of_kinds(config)
        self.streams: list[Stream[FeatureStore]] = []
        for kind, names in enumerate((config.sets_2d, config.sets_3d)):
            sets = []
            for name in names:
                store = stores[name]
                stride = config.stride_of.get(name, config.stride)
                starts = training_windows(store.tracks, store.frame_index, frames=frames, stride=stride)
                sets.append(
                    WindowSet(store, starts, is_3d=kind == 1, use_smpl=kind == 1 and name not in config.no_smpl)
                )
            stream = Stream(sets, seed=seed, stream=kind)
            if self.counts[kind] and not len(stream):
                raise InputError(
                    f"{', '.join(names)}: no track has {frames} consecutive frames, so there is nothing to train on; "
                    "extract more video or shorten model.frames"
                )
            self.streams.append(stream)

    @property
    def windows(self) -> int:
        """The number of windows of all sets."""
        return sum(len(stream) for stream in self.streams)

    def batches(self, step: int) -> list[Batch]:
        """This rank's share of the batch of a step (0-based), in parts."""
        return [self.batch(step, part) for part in range(self.parts)]

    def batch(self, step: int, part: int = 0) -> Batch:
        """One part of this rank's share of the batch of a step (0-based)."""
        first, every = self.rank * self.parts + part, self.world * self.parts
        loaded, mask_noise, feature_noise = [], [], []
        for kind, (stream, count) in enumerate(zip(self.streams, self.counts, strict=True)):
            if not count:
                continue
            mine = np.arange(step * count, (step + 1) * count)[first::every]
            generator = np.random.default_rng([self.seed, MASK_NOISE, kind, step])
            of_step = generator.random((count, self.frames), np.float32)
            for window_set, starts, positions in stream.take(mine):
                loaded.append((window_set, window_set.store.batch(starts, self.frames)))
                mask_noise.append(of_step[positions - step * count])
                if self.feature_noise:
                    size = window_set.store.features.shape[1]
                    feature_noise.append(np.stack([self._unit_feature_noise(kind, int(p), size) for p in positions]))

        def gather(column: str) -> Tensor:
            return torch.from_numpy(np.concatenate([batch[column] for _, batch in loaded])).float()

        def flag(column: str, used: Callable[[WindowSet[FeatureStore]], bool]) -> Tensor:
            labelled = [batch[column] & (batch["valid"] | self.uses_invalid) & used(s) for s, batch in loaded]
            return torch.from_numpy(np.concatenate(labelled)).float()

        is_3d = np.concatenate([np.full(len(batch["valid"]), s.is_3d) for s, batch in loaded])
        targets = Targets(
            keypoints2d=gather("keypoints2d"),
            joints3d=gather("joints3d"),
            rotmats=axis_angle_to_rotmat(gather("pose")),
            betas=gather("betas"),
            w_3d=flag("has_3d", lambda window_set: window_set.is_3d),
            w_smpl=flag("has_smpl", lambda window_set: window_set.use_smpl),
            is_3d=torch.from_numpy(is_3d),
            joints3d_valid=torch.from_numpy(np.concatenate([batch["joints3d_valid"] for _, batch in loaded])),
        )
        features = gather("features")
        if self.feature_noise:
            features += self.feature_noise * torch.from_numpy(np.concatenate(feature_noise))
        return Batch(features, targets, torch.from_numpy(np.concatenate(mask_noise)))

    def describe(self, step: int) -> list[tuple[str, bool]]:
        """(window in words, whether all its numbers are finite) for every window of a step's batch on all ranks."""
        windows = []
        for stream, count in zip(self.streams, self.counts, strict=True):
            for window_set, starts, _ in stream.take(np.arange(step * count, (step + 1) * count)):
                store = window_set.store
                tracks = sorted(store.tracks, key=lambda track: track.start)
                values = store.batch(starts, self.frames)
                finite = np.isfinite(values["features"]).all((1, 2)) & np.isfinite(values["keypoints2d"]).all((1, 2, 3))
                values["joints3d"][~values["joints3d_valid"]] = 0  # unknown joints may hold anything
                for flag, column in (("has_3d", "joints3d"), ("has_smpl", "pose"), ("has_smpl", "betas")):
                    known = np.isfinite(values[column]).reshape(*values[flag].shape, -1).all(-1)
                    finite &= (known | ~values[flag]).all(1)
                for i, start in enumerate(starts):
                    track = tracks[np.searchsorted([track.start for track in tracks], start, side="right") - 1]
                    first, last = store.frame_index[[start, start + self.frames - 1]]
                    name = f"{store.manifest.dataset} {track.track_id} frames {first} to {last}"
                    windows.append((name, bool(finite[i])))
        return windows

    def _unit_feature_noise(self, kind: int, position: int, size: int) -> np.ndarray:
        """Feature noise (T, F) of unit variance for the window at a position of a stream.

        Most of the noise is the same in all frames of the window, as real errors of features are. The model could
        average out noise that is independent from frame to frame.
        """
        values = np.random.default_rng([self.seed, FEATURE_NOISE, kind, position]).standard_normal(
            (self.frames + 1, size), np.float32
        )
        return SHARED * values[:1] + np.sqrt(1 - SHARED**2, dtype=np.float32) * values[1:]
