"""Motion capture files in, MotionClips at 30 frames a second out: the shipped clips, BVH files or AMASS npz files."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from pipelines.motions.bvh_reader import read_bvh
from pipelines.motions.motion_clip import FPS, MotionClip, resample
from pipelines.motions.spec import SHIPPED

AMASS_RATES = ("mocap_framerate", "mocap_frame_rate")


def load_motions(path: Path | None = None) -> dict[str, MotionClip]:
    """Clips by name, at 30 fps, of a .bvh file, an .npz file or a folder of both with its subfolders. None: the
    shipped clips.

    An npz file is AMASS's (``poses`` (n, 156 or 72), ``trans``, ``mocap_framerate``; z up) or has many clips
    (``<clip>/poses`` (N, 72) and ``<clip>/trans`` at 30 fps, y up). Raises InputError for anything else and for clips
    of fewer than two frames.
    """
    path = SHIPPED if path is None else Path(path)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in (".bvh", ".npz") and f.is_file())
        if not files:
            raise InputError(
                f"{path}: no .bvh or .npz file in this folder; give a folder of motions or leave --motions out"
            )
        motions: dict[str, MotionClip] = {}
        for file in files:
            prefix = file.relative_to(path).with_suffix("").as_posix().replace("/", "-")
            for name, clip in _read(file).items():
                motions[prefix if name == file.stem else f"{prefix}-{name}"] = clip
    elif path.is_file():
        motions = _read(path)
    else:
        raise InputError(f"{path}: no such file or folder; --motions takes a .bvh, an .npz, or a folder of them")
    return dict(sorted(motions.items()))


def _read(file: Path) -> dict[str, MotionClip]:
    if file.suffix.lower() == ".bvh":
        poses, trans, fps = read_bvh(file)
        return {file.stem: resample(_checked(file, file.stem, poses, trans, fps))}
    if file.suffix.lower() != ".npz":
        raise InputError(f"{file}: neither a .bvh nor an .npz file; motions are read from these two")
    try:
        with np.load(file, allow_pickle=False) as npz:
            if "poses" in npz.files:
                keys = ("poses", "trans", *AMASS_RATES)
                return {file.stem: _amass(file, {key: npz[key] for key in npz.files if key in keys})}
            return _many_clips(file, npz)
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read as an npz of plain arrays ({str(error).splitlines()[0]})") from None


def _many_clips(file: Path, npz: np.lib.npyio.NpzFile) -> dict[str, MotionClip]:
    names = sorted(key[: -len("/poses")] for key in npz.files if key.endswith("/poses"))
    if not names:
        raise InputError(f"{file}: holds neither 'poses' (AMASS) nor '<clip>/poses'; found {npz.files[:4]}")
    clips = {}
    for name in names:
        if f"{name}/trans" not in npz.files:
            raise InputError(f"{file}: '{name}/poses' has no '{name}/trans' beside it")
        clips[name] = _checked(file, name, npz[f"{name}/poses"], npz[f"{name}/trans"], FPS)
    return clips


def _amass(file: Path, arrays: dict[str, np.ndarray]) -> MotionClip:
    """AMASS is z up and has SMPL-H's 52 joints. The first 22 are SMPL's; SMPL's two hands stay at rest."""
    if "trans" not in arrays:
        raise InputError(f"{file}: an AMASS file needs 'trans' beside 'poses'")
    poses = np.asarray(arrays["poses"], dtype=np.float64)
    if poses.ndim != 2 or poses.shape[1] not in (72, 156, 165):
        raise InputError(f"{file}: 'poses' is {poses.shape}, expected (frames, 72) or (frames, 156)")
    rate = next((float(arrays[key]) for key in AMASS_RATES if key in arrays and arrays[key].size == 1), 0.0)
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


def _checked(file: Path, name: str, poses: np.ndarray, trans: np.ndarray, fps: float) -> MotionClip:
    poses, trans = np.asarray(poses, dtype=np.float32), np.asarray(trans, dtype=np.float32)
    if len(poses) < 2 or poses[0].size != 72 or trans.shape != (len(poses), 3):
        raise InputError(
            f"{file}: clip '{name}' has poses {poses.shape}, trans {trans.shape}; expected (N, 72), (N, 3), N > 1"
        )
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise InputError(f"{file}: clip '{name}' has values that are not finite numbers")
    return MotionClip(poses.reshape(-1, 24, 3), trans, fps)
