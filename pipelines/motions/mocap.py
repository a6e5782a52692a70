"""Human motions as SMPL poses: the shipped clips, BVH files or AMASS npz in, Motions out; mirror, resample, join.

Everything leaves with 24 joints (local rotations, radians, T-pose rest), y up, facing +z at rest, 30 frames a second.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS
from pipelines.motions.bvh_reader import read_bvh

SHIPPED = Path(__file__).parents[1] / "assets" / "motions.npz"
FPS = 30.0
MIRROR = tuple(
    SMPL_JOINTS.index(name.replace("left", "\0").replace("right", "left").replace("\0", "right"))
    for name in SMPL_JOINTS
)
PELVIS = SMPL_JOINTS.index("pelvis")
BLEND_RADIANS = (
    0.06  # a blend between clips turns no joint faster than this a frame (1.8 rad/s), on the mean of the joints
)
CYCLE_RADIANS = 0.12  # first and last pose closer than this on the mean of the joints: the clip can be played again


@dataclass(frozen=True)
class Motion:
    """A clip: ``poses`` (N, 24, 3) axis-angle, radians; ``trans`` (N, 3) of the pelvis, metres, up to a constant."""

    poses: np.ndarray
    trans: np.ndarray
    fps: float = FPS

    def __len__(self) -> int:
        return len(self.poses)


def load_motions(path: Path | None = None) -> dict[str, Motion]:
    """Clips by name, at 30 fps: None the shipped ones; a .bvh, an .npz, or a folder of either (searched in depth).

    npz: AMASS (``poses`` (n, 156 or 72), ``trans``, ``mocap_framerate``; z up) or many clips (``<clip>/poses`` (N, 72)
    and ``<clip>/trans`` at 30 fps, y up). Raises InputError for anything else, and where no clip has two frames.
    """
    path = SHIPPED if path is None else Path(path)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in (".bvh", ".npz") and f.is_file())
        if not files:
            raise InputError(
                f"{path}: no .bvh or .npz file in this folder; give a folder of motions or leave --motions out"
            )
        motions: dict[str, Motion] = {}
        for file in files:
            prefix = file.relative_to(path).with_suffix("").as_posix().replace("/", "-")
            for name, motion in _read(file).items():
                motions[prefix if name == file.stem else f"{prefix}-{name}"] = motion
    elif path.is_file():
        motions = _read(path)
    else:
        raise InputError(f"{path}: no such file or folder; --motions takes a .bvh, an .npz, or a folder of them")
    return dict(sorted(motions.items()))


def _read(file: Path) -> dict[str, Motion]:
    if file.suffix.lower() == ".bvh":
        poses, trans, fps = read_bvh(file)
        return {file.stem: resample(_checked(file, file.stem, poses, trans, fps))}
    if file.suffix.lower() != ".npz":
        raise InputError(f"{file}: motions are .bvh or .npz files, this is neither")
    try:
        with np.load(file, allow_pickle=False) as npz:
            if "poses" in npz.files:
                return {file.stem: _amass(file, {k: npz[k] for k in npz.files if k in AMASS_KEYS})}
            clips = sorted(key[: -len("/poses")] for key in npz.files if key.endswith("/poses"))
            if not clips:
                raise InputError(f"{file}: holds neither 'poses' (AMASS) nor '<clip>/poses'; found {npz.files[:4]}")
            out = {}
            for clip in clips:
                if f"{clip}/trans" not in npz.files:
                    raise InputError(f"{file}: '{clip}/poses' has no '{clip}/trans' beside it")
                out[clip] = _checked(file, clip, npz[f"{clip}/poses"], npz[f"{clip}/trans"], FPS)
            return out
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read as an npz of plain arrays ({str(error).splitlines()[0]})") from None


AMASS_KEYS = ("poses", "trans", "mocap_framerate", "mocap_frame_rate")


def _amass(file: Path, arrays: dict[str, np.ndarray]) -> Motion:
    """AMASS is z up and has SMPL-H's 52 joints: the first 22 are SMPL's, its hands are left at rest. z up -> y up."""
    if "trans" not in arrays:
        raise InputError(f"{file}: an AMASS file needs 'trans' beside 'poses'")
    poses = np.asarray(arrays["poses"], dtype=np.float64)
    if poses.ndim != 2 or poses.shape[1] not in (72, 156, 165):
        raise InputError(f"{file}: 'poses' is {poses.shape}, expected (frames, 72) or (frames, 156)")
    rate = next((float(arrays[k]) for k in AMASS_KEYS[2:] if k in arrays and arrays[k].size == 1), 0.0)
    if not 1 <= rate <= 1000:
        raise InputError(f"{file}: 'mocap_framerate' is missing or not a number of frames a second")
    body = np.zeros((len(poses), 72))
    body[:, :66] = poses[:, :66]
    if poses.shape[1] == 72:
        body[:, 66:] = poses[:, 66:]
    to_y_up = Rotation.from_euler("x", -90, degrees=True)
    body[:, :3] = (to_y_up * Rotation.from_rotvec(body[:, :3])).as_rotvec()
    trans = to_y_up.apply(np.asarray(arrays["trans"], dtype=np.float64).reshape(len(poses), -1)[:, :3])
    return resample(_checked(file, file.stem, body, trans, rate))


def _checked(file: Path, clip: str, poses: np.ndarray, trans: np.ndarray, fps: float) -> Motion:
    poses, trans = np.asarray(poses, dtype=np.float32), np.asarray(trans, dtype=np.float32)
    if len(poses) < 2 or poses[0].size != 72 or trans.shape != (len(poses), 3):
        raise InputError(
            f"{file}: clip '{clip}' has poses {poses.shape}, trans {trans.shape}; expected (N, 72), (N, 3), N > 1"
        )
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise InputError(f"{file}: clip '{clip}' holds values that are not numbers")
    return Motion(poses.reshape(-1, 24, 3), trans, fps)


def resample(motion: Motion, *, fps: float = FPS, times: np.ndarray | None = None) -> Motion:
    """At another rate, or at given ``times`` (seconds): slerp for rotations, linear for translation."""
    own = np.arange(len(motion)) / motion.fps
    if times is None:
        if abs(motion.fps / fps - 1) < 1e-3:  # files round their frame time
            return Motion(motion.poses, motion.trans, fps)
        times = np.arange(int(own[-1] * fps + 0.01) + 1) / fps
    times = np.clip(times, own[0], own[-1])
    poses = np.stack(
        [Slerp(own, Rotation.from_rotvec(motion.poses[:, j]))(times).as_rotvec() for j in range(24)], axis=1
    )
    trans = np.stack([np.interp(times, own, motion.trans[:, k]) for k in range(3)], axis=1)
    return Motion(poses.astype(np.float32), trans.astype(np.float32), fps)


def mirror(motion: Motion) -> Motion:
    """Left and right exchanged: another true human motion. Twice is the original."""
    flip = np.array([1, -1, -1], dtype=np.float32)  # rotation vectors are pseudovectors: x stays, y and z turn over
    return Motion(motion.poses[:, MIRROR] * flip, motion.trans * np.array([-1, 1, 1], dtype=np.float32), motion.fps)


def turned(motion: Motion, *, yaw: float, to: np.ndarray | None = None) -> Motion:
    """The clip turned by ``yaw`` radians about the vertical, its first frame above ``to`` (x, z; None: the origin)."""
    turn = Rotation.from_euler("y", yaw)
    poses = motion.poses.copy()
    poses[:, PELVIS] = (turn * Rotation.from_rotvec(poses[:, PELVIS])).as_rotvec()
    trans = turn.apply(motion.trans - motion.trans[0] * [1, 0, 1])
    trans[:, [0, 2]] += np.zeros(2) if to is None else to
    return Motion(poses, trans.astype(np.float32), motion.fps)


def heading(pose: np.ndarray) -> float:
    """Where a pose (24, 3) faces, radians about the vertical from +z. Lying down: where the top of the head lies."""
    forward, up = Rotation.from_rotvec(pose[PELVIS]).apply([[0, 0, 1], [0, 1, 0]])
    level = forward if abs(forward[1]) < 0.8 else -np.sign(forward[1]) * up
    return float(np.arctan2(level[0], level[2]))


def pose_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean angle (radians) between the joints of two poses (24, 3), whatever way they face."""
    a, b = a.copy(), b.copy()
    for pose in (a, b):
        pose[PELVIS] = (Rotation.from_euler("y", -heading(pose)) * Rotation.from_rotvec(pose[PELVIS])).as_rotvec()
    return float((Rotation.from_rotvec(a).inv() * Rotation.from_rotvec(b)).magnitude().mean())


def is_cycle(motion: Motion) -> bool:
    """Ends as it began (a walk, a run, a dance figure), so that it can be played again without a visible seam."""
    return pose_distance(motion.poses[0], motion.poses[-1]) < CYCLE_RADIANS


def join(first: Motion, second: Motion) -> Motion:
    """``second`` goes on where ``first`` ends, in its direction, with slerped frames between unless the poses meet."""
    assert first.fps == second.fps
    last = first.poses[-1]
    second = turned(second, yaw=heading(last) - heading(second.poses[0]), to=first.trans[-1][[0, 2]])
    gap = pose_distance(last, second.poses[0])
    count = 0 if gap < BLEND_RADIANS else int(np.ceil(gap / BLEND_RADIANS))
    # What each end was doing goes on fading through the blend, so that nobody stops dead.
    step = 0.5 * (first.trans[-1] - first.trans[-2] + second.trans[1] - second.trans[0]) * [1, 0, 1]
    shift = (step * (count + 1)).astype(np.float32)
    second = Motion(second.poses, second.trans + shift, second.fps)
    if count == 0:
        return Motion(
            np.concatenate([first.poses, second.poses]), np.concatenate([first.trans, second.trans]), first.fps
        )
    share = np.linspace(0, 1, count + 2)[1:-1]
    ease = share * share * (3 - 2 * share)
    middle = np.stack(
        [
            Slerp([0, 1], Rotation.from_rotvec(np.stack([last[j], second.poses[0, j]])))(ease).as_rotvec()
            for j in range(24)
        ],
        axis=1,
    ).astype(np.float32)
    path = first.trans[-1] + ease[:, None] * (second.trans[0] - first.trans[-1])
    return Motion(
        np.concatenate([first.poses, middle, second.poses]),
        np.concatenate([first.trans, path.astype(np.float32), second.trans]),
        first.fps,
    )
