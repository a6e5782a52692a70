"""Posed people and a random generator in, the path of a hand-held camera that films them out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from pipelines.motions.motion_clip import PELVIS
from pipelines.scenes.posed_person import PosedPerson
from pipelines.scenes.spec import HIGHEST_CAMERA, RICH

# Probabilities of the camera's moves. "follow": it goes along with the people. "pan": it stays and turns towards them.
# "still": it looks at one place. "away": it turns aside for a while, so that the people leave the picture.
MOVES = {"follow": 0.45, "pan": 0.25, "still": 0.15, "away": 0.15}
STEADY_MOVES = {"follow": 0.25, "pan": 0.35, "still": 0.35, "away": 0.05}
LENSES = (0.9, 1.7)  # range of focal lengths, in widths of the picture
RICH_LENSES = (0.65, 2.8)
RICH_HIGHEST = 3.8  # metres above the floor


@dataclass(frozen=True)
class CameraPath:
    """A camera over N frames: ``intrinsics`` (3, 3) pixels, ``world_to_camera`` (N, 4, 4)."""

    intrinsics: np.ndarray
    world_to_camera: np.ndarray

    @property
    def eyes(self) -> np.ndarray:
        """(N, 3) places of the camera in the world frame, metres."""
        turn, shift = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -np.einsum("nji,nj->ni", turn, shift)


def random_camera(
    rng: np.random.Generator,
    people: list[PosedPerson],
    *,
    size: int,
    fill: tuple[float, float],
    highest: float = HIGHEST_CAMERA,
    move: str | None = None,
    focal: float | None = None,
    shaking: float = 1.0,
    off_centre: float = 0.03,
) -> CameraPath:
    """A hand-held camera that looks at the people from any side.

    ``size`` is the width and height of the picture, px. ``fill`` is the range for the height of a standing person, as
    a share of the picture's height. ``highest`` is the largest starting height of the camera above the floor, metres.
    ``move`` is one of MOVES; None draws one. ``focal`` is the focal length, px; None draws one of LENSES. A camera with
    ``shaking`` 0 stands on a tripod. ``off_centre`` is the standard deviation of the angle by which it looks past them.
    """
    frames = len(people[0].trans)
    focal = size * rng.uniform(*LENSES) if focal is None else focal
    centre = (size - 1) / 2 + rng.normal(0, size * 0.01, 2)
    intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    pelvis = np.stack([person.smpl_joints[:, PELVIS] for person in people])  # (P, N, 3)
    middle = gaussian_filter1d(pelvis.mean(0), 8, axis=0, mode="nearest")
    spread = np.linalg.norm(pelvis - middle, axis=-1).max() if len(people) > 1 else 0.0
    distance = max(1.7 * focal / size / rng.uniform(*fill) + 0.5 * spread, 1.6 + spread)
    move = move or str(rng.choice(list(MOVES), p=list(MOVES.values())))
    anchor = middle if move in ("follow", "away") else np.repeat(middle[frames // 2][None], frames, axis=0)
    turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, 1, frames) * frames / 30 * rng.normal(0, 0.35) * bool(shaking)
    eye = anchor + distance * np.stack([np.sin(turn), np.zeros(frames), np.cos(turn)], axis=1)
    eye[:, 1] = rng.uniform(0.35, highest) + np.linspace(0, 1, frames) * rng.normal(0, 0.25) * bool(shaking)
    target = (anchor if move == "still" else middle) * [1, 0.7, 1] + [0, 0.25, 0]
    if move == "away":
        target = target + _look_aside(rng, eye, target, distance=distance, size=size, focal=focal)
    eye = eye + sway(rng, frames, size=0.015 * shaking)
    target = target + sway(rng, frames, size=0.012 * shaking * distance) + rng.normal(0, off_centre * distance, 3)
    eye[:, 1] = np.maximum(eye[:, 1], 0.15)
    roll = sway(rng, frames, size=0.008 * shaking)[:, 0] + rng.normal(0, 0.03)
    poses = [look_at(eye[i], target[i], roll=float(roll[i])) for i in range(frames)]
    return CameraPath(intrinsics, np.stack(poses))


def random_rich_camera(
    rng: np.random.Generator,
    people: list[PosedPerson],
    *,
    size: int,
    fill: tuple[float, float],
    highest: float = RICH_HIGHEST,
    move: str | None = None,
) -> CameraPath:
    """A camera with any lens, in a hand or on a tripod, that may look past people or be too close to see them whole.

    The arguments are those of ``random_camera``.
    """
    steady = rng.random() < 0.35
    moves = STEADY_MOVES if steady else MOVES
    move = move or str(rng.choice(list(moves), p=list(moves.values())))
    close = len(people) == 1 and rng.random() < 0.2
    return random_camera(
        rng,
        people,
        size=size,
        fill=(0.9, 2.0) if close else fill,
        highest=highest if rng.random() < 0.4 else min(highest, 2.0),
        move=move,
        focal=size * float(np.exp(rng.uniform(*np.log(RICH_LENSES)))),
        shaking=0.0 if steady else rng.uniform(0.3, 2.0),
        off_centre=rng.uniform(0.01, 0.08),
    )


def camera_of(look: str) -> Callable[..., CameraPath]:
    """The function that draws a camera for pictures of a look."""
    return random_rich_camera if look == RICH else random_camera


def _look_aside(
    rng: np.random.Generator, eye: np.ndarray, target: np.ndarray, *, distance: float, size: int, focal: float
) -> np.ndarray:
    """(N, 3) metres by which the target moves sideways: for a while, so far that the people leave the picture.

    ``distance`` to the people, metres; ``size`` of the picture and ``focal`` length, px.
    """
    frames = len(eye)
    side = np.cross(target - eye, [0, 1, 0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    time = np.arange(frames) - rng.uniform(-0.1, 1.1) * frames
    pull = np.exp(-np.square(time / rng.uniform(8, 14))) * rng.choice([-1, 1])
    return side * (pull * distance * size / focal * rng.uniform(1.0, 1.5))[:, None]


def look_at(eye: np.ndarray, target: np.ndarray, *, roll: float = 0.0) -> np.ndarray:
    """(4, 4) world to camera (x right, y down, z forward) of a camera at ``eye`` that looks at ``target``, metres."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    camera = np.eye(4)
    camera[:3, :3] = [right, down, forward]
    camera[:3, 3] = -camera[:3, :3] @ eye
    return camera


def sway(rng: np.random.Generator, frames: int, *, size: float) -> np.ndarray:
    """(frames, 3) smooth wandering of a hand-held camera: slow waves of random phase, standard deviation ``size``."""
    time = np.arange(frames)[:, None, None] / 30
    rates = rng.uniform(0.15, 1.6, (1, 3, 4))
    waves = np.sin(2 * np.pi * (rates * time + rng.random((1, 3, 4)))) / (0.5 + rates)
    return size * waves.sum(-1)
