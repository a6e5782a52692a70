"""Sets of real motions and the number of a step in; the windows of the step, turned and mirrored at random, out.

B windows, T = 90 frames. A pose is 24 rotations, 6D in MEVA's layout (144 numbers). The number of a step alone decides
its windows. A motion is seen in proportion to its frames; every window of it is as likely as another.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glot.errors import InputError
from glot.features.motion_sets import MotionSet
from glot.human.joints import SMPL_MIRROR
from glot.human.rotation import axis_angle_to_rotmat, rotmat_to_rot6d
from glot.models.meva import spin_to_meva

FRAMES = 90  # of a window, as in the release
HELD_OUT = 10  # one motion in so many is held out
HELD_WINDOWS = 256  # at most so many windows of held out motions are looked at
TRAIN, HELD, SAMPLE = 0, 1, 2  # part of the seeds
MIRROR_AXIS = np.array([1, -1, -1], np.float32)  # of an axis-angle, when the x axis is mirrored


class Clip(NamedTuple):
    """A motion of a set: its rows [start, stop) of ``poses`` (N, 24, 3), axis-angle."""

    name: str
    poses: NDArray[np.float32]
    start: int
    stop: int

    @property
    def frames(self) -> int:
        return self.stop - self.start

    def rows(self, begin: int) -> NDArray[np.int64]:
        """The rows (T,) of the window number ``begin``. A motion of less than T frames is played forth and back."""
        if self.frames >= FRAMES:
            return np.arange(FRAMES) + self.start + begin
        period = max(2 * (self.frames - 1), 1)
        at = (begin + np.arange(FRAMES)) % period
        return self.start + np.minimum(at, period - at)

    @property
    def windows(self) -> int:
        """The number of different windows."""
        return self.frames - FRAMES + 1 if self.frames >= FRAMES else max(2 * (self.frames - 1), 1)


class MotionWindows:
    """The windows of motion sets. ``reverses``: whether windows are played backwards with a probability of 0.5.

    ``long_only`` leaves out motions of less than T frames. InputError where fewer than two motions are left: one of
    them is held out.
    """

    def __init__(self, sets: Sequence[MotionSet], *, seed: int, reverses: bool, long_only: bool = False) -> None:
        self.seed, self.reverses, self._sets = seed, reverses, list(sets)  # sets keep their local copies alive
        clips = [Clip(name, s.pose, start, stop) for s in sets for name, start, stop in s.motions]
        clips = [clip for clip in clips if clip.frames >= FRAMES or not long_only]
        if (count := len({clip.name for clip in clips})) < 2:
            raise InputError(
                f"{', '.join(str(s.file) for s in sets)}: {count} motions{' of 90 frames' if long_only else ''}, "
                "at least 2 are needed, because one is held out; add motions" + (" or drop --long-only" * long_only)
            )
        self.held = held_out(clips)
        names = {clip.name for clip in self.held}
        self.train = [clip for clip in clips if clip.name not in names]
        self._bounds = np.cumsum([clip.frames for clip in self.train])

    def batch(self, step: int, count: int, *, purpose: int = TRAIN) -> Tensor:
        """(B, T, 144): the windows of a step (0-based)."""
        rng = np.random.default_rng([self.seed, purpose, step])
        chosen = np.searchsorted(self._bounds, rng.integers(self._bounds[-1], size=count), side="right")
        clips = [self.train[number] for number in chosen]
        begins = [int(share * clip.windows) for share, clip in zip(rng.random(count), clips, strict=True)]
        mirrors, backwards, turns = rng.random(count) < 0.5, rng.random(count) < 0.5, rng.random((count, 2))
        return windows_of(
            clips, begins, turns, mirrors=mirrors, backwards=backwards if self.reverses else np.zeros(count, bool)
        )

    def sample(self, count: int) -> Tensor:
        """(count, T, 144): windows of the motions that are trained on, apart from those of the steps."""
        return self.batch(0, count, purpose=SAMPLE)

    def held_windows(self) -> Tensor:
        """(n, T, 144): windows of the held out motions, side by side, turned at random, always the same ones."""
        found = [(clip, begin) for clip in self.held for begin in range(0, max(clip.frames - FRAMES, 0) + 1, FRAMES)]
        picked = [found[i] for i in np.linspace(0, len(found) - 1, min(len(found), HELD_WINDOWS)).astype(int)]
        turns, still = np.random.default_rng([self.seed, HELD]).random((len(picked), 2)), np.zeros(len(picked), bool)
        return windows_of([c for c, _ in picked], [b for _, b in picked], turns, mirrors=still, backwards=still)


def held_out(clips: Sequence[Clip]) -> list[Clip]:
    """About every tenth motion, by a hash of its name; at least one. Motions of the same name go together."""
    numbers = {clip.name: int(hashlib.sha256(clip.name.encode()).hexdigest()[:8], 16) for clip in clips}
    names = {name for name, number in numbers.items() if number % HELD_OUT == 0}
    if not names or len(names) == len(numbers):
        names = {min(numbers, key=lambda name: (numbers[name] % HELD_OUT, numbers[name]))}
    return [clip for clip in clips if clip.name in names]


def windows_of(
    clips: Sequence[Clip],
    begins: Sequence[int],
    turns: NDArray[np.float64],
    *,
    mirrors: NDArray[np.bool_],
    backwards: NDArray[np.bool_],
) -> Tensor:
    """(B, T, 144): windows, mirrored and played backwards where asked, and turned.

    ``turns`` (B, 2) in [0, 1): the first root of the *motion* becomes a turn about x by 180 to 240 degrees after a turn
    about y by 0 to 360 degrees. The rest of the motion is turned along. So a person who lies still lies, before a
    camera whose y points down. The release turns each motion three times; here every window has its own turn.
    """
    poses = np.empty((len(clips), FRAMES + 1, 24, 3), np.float32)  # the first is the motion's first pose
    for out, clip, begin, mirror, backward in zip(poses, clips, begins, mirrors, backwards, strict=True):
        rows = clip.rows(begin)
        out[0], out[1:] = clip.poses[clip.start], clip.poses[rows[::-1] if backward else rows]
        if mirror:
            out[...] = out[:, SMPL_MIRROR] * MIRROR_AXIS
    rotmats = axis_angle_to_rotmat(torch.from_numpy(poses))
    first, rotmats = rotmats[:, 0, 0], rotmats[:, 1:]
    angles = torch.from_numpy(np.deg2rad([180, 0] + turns * [60, 360]).astype(np.float32))
    about_x, about_y = torch.zeros(2, len(angles), 3)
    about_x[:, 0], about_y[:, 1] = angles.unbind(1)
    turn = axis_angle_to_rotmat(about_x) @ axis_angle_to_rotmat(about_y) @ first.mT
    root = turn[:, None] @ rotmats[:, :, 0]
    whole = torch.cat((root[:, :, None], rotmats[:, :, 1:]), dim=2)
    return spin_to_meva(rotmat_to_rot6d(whole).flatten(-2))
