"""Motion capture files in, MotionClips at 30 frames a second out: the shipped clips, the CMU database's ASF/AMC files,
BVH files, AMASS npz files."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.spatial.transform import Rotation

from glot import cli
from glot.errors import InputError
from pipelines.motions.bvh_reader import read_bvh
from pipelines.motions.cmu_reader import read_cmu
from pipelines.motions.motion_clip import FPS, MotionClip, resample
from pipelines.motions.spec import KINDS, SHIPPED
from pipelines.motions.subjects import read_table, subject_of

FIRST_FINGERS = {156: (22, 37), 165: (25, 40)}  # joints of the left and the right hand, by numbers in a pose
AMASS_RATES = ("mocap_framerate", "mocap_frame_rate")
SUFFIXES = (".amc", ".bvh", ".npz")
MOST_RADIANS = 100.0  # a rotation vector of a pose is never so long
MANY = 20  # files of a folder from which on progress is shown


def load_motions(path: Path | None = None) -> dict[str, MotionClip]:
    """Clips by name, at 30 fps, of a file or of a folder of files with its subfolders. None: the shipped clips.

    An .amc file is a motion of the CMU database, whose skeleton (01.asf for 01_01.amc) is beside it or elsewhere in the
    folder. A .bvh file may come from any program. An .npz file is AMASS's (``poses`` (n, 156 or 72), ``trans``,
    ``mocap_framerate``; z up) or has many clips (``<clip>/poses`` (N, 72) and ``<clip>/trans`` at 30 fps, y up) and
    perhaps a table of the people in them (``clips``, ``subjects``, ``splits``).

    Poses are in radians, trans in metres; y is up, +z forward at rest. A clip's ``subject`` is that of the table, or
    CMU's number in the clip's name.

    Raises InputError for a file that cannot be read. In a folder, such files are named on stderr and left out, so that
    one damaged file among thousands does not stop the others; a folder in which none can be read raises InputError.
    """
    path = SHIPPED if path is None else Path(path)
    motions: dict[str, MotionClip] = {}
    left_out: list[InputError] = []
    for name, found in each_motion(path):
        if isinstance(found, InputError):
            left_out.append(found)
            print(f"left out: {found}", file=sys.stderr)
        else:
            motions[name] = found
    if not motions:
        raise InputError(f"{path}: no motion file in it can be read; the first of {len(left_out)}: {left_out[0]}")
    if left_out:
        print(f"{path}: {len(left_out)} of {len(_files_in(path))} motion files are left out", file=sys.stderr)
    return dict(sorted(motions.items()))


def each_motion(path: Path, *, hands: bool = False) -> Iterator[tuple[str, MotionClip | InputError]]:
    """The clips of ``load_motions``, one file at a time, so that memory does not grow with a folder.

    A file of a folder that cannot be read is its name and its InputError. ``hands``: SMPL's two hand joints turn as the
    first finger of SMPL-H's and SMPL-X's hands, as in VIBE's motions; otherwise they stay at rest.
    """
    if path.is_dir():
        found: Iterator[tuple[str, MotionClip | InputError]] = _each_of_folder(path, hands)
    elif path.is_file():
        found = iter(_read(path, folder=path.parent, hands=hands).items())
    else:
        raise InputError(f"{path}: no such file or folder; --motions takes {KINDS}")
    for name, clip in found:
        if isinstance(clip, MotionClip) and not clip.subject:
            clip = replace(clip, subject=subject_of(name))
        yield name, clip


def _each_of_folder(path: Path, hands: bool) -> Iterator[tuple[str, MotionClip | InputError]]:
    files = _files_in(path)
    if not files:
        raise InputError(f"{path}: no .amc, .bvh or .npz file in this folder; --motions takes {KINDS}")
    seen: set[str] = set()
    for file in cli.progress(files, total=len(files), what="motion files") if len(files) >= MANY else files:
        prefix = file.relative_to(path).with_suffix("").as_posix().replace("/", "-")
        try:
            clips = _read(file, folder=path, tell=len(files) < MANY, hands=hands)
            names = {prefix if name == file.stem else f"{prefix}-{name}": name for name in clips}
            again = sorted(seen & names.keys())
            if again:
                raise InputError(f"{file}: clip '{again[0]}' is also in another file of this name; keep one of them")
        except InputError as error:
            yield prefix, error
            continue
        seen |= names.keys()
        yield from ((key, clips[name]) for key, name in names.items())


def _files_in(folder: Path) -> list[Path]:
    """The motion files of a folder and its subfolders."""
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())


def _read(file: Path, *, folder: Path, tell: bool = True, hands: bool = False) -> dict[str, MotionClip]:
    """The clips of one file. ``folder`` is where skeletons are looked for."""
    suffix = file.suffix.lower()
    if suffix == ".amc":
        return {file.stem: _clip(file, *read_cmu(file, _skeleton_of(file, folder)))}
    if suffix == ".bvh":
        return {file.stem: _clip(file, *read_bvh(file, tell=tell))}
    if suffix == ".asf":
        raise InputError(f"{file}: is a skeleton without motion; give the .amc file beside it, or the folder of both")
    if suffix != ".npz":
        raise InputError(f"{file}: is no motion file; --motions takes {KINDS}")
    try:
        with np.load(file, allow_pickle=False) as npz:
            if "poses" in npz.files:
                keys = ("poses", "trans", *AMASS_RATES)
                return {file.stem: _amass(file, {key: npz[key] for key in npz.files if key in keys}, hands)}
            return _many_clips(file, npz)
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read as an npz of plain arrays ({str(error).splitlines()[0]})") from None


def _clip(file: Path, poses: np.ndarray, trans: np.ndarray, fps: float) -> MotionClip:
    """The only clip of a file, at 30 fps."""
    step = round(fps / FPS)
    if step > 1 and abs(fps / FPS - step) < 1e-3:  # every 4th of 120 frames a second; files round their frame time
        poses, trans, fps = poses[::step], trans[::step], FPS
    return resample(_checked(file, file.stem, poses, trans, fps))


def _skeleton_of(motion: Path, folder: Path) -> Path:
    """The .asf file of an .amc file: by name beside it, the only one beside it, or by name anywhere in ``folder``."""
    subject = motion.stem.rpartition("_")[0] or motion.stem
    beside = sorted(f for f in motion.parent.iterdir() if f.suffix.lower() == ".asf")
    named = [f for f in beside if f.stem.lower() in (subject.lower(), motion.stem.lower())]
    found = named or (beside if len(beside) == 1 else [])
    found = found or sorted(f for f in folder.rglob("*") if f.name.lower() == f"{subject.lower()}.asf")
    if not found:
        raise InputError(
            f"{motion}: its skeleton {subject}.asf is missing; mocap.cs.cmu.edu has it beside the motion: put it there"
        )
    return found[0]


def _many_clips(file: Path, npz: np.lib.npyio.NpzFile) -> dict[str, MotionClip]:
    names = sorted(key[: -len("/poses")] for key in npz.files if key.endswith("/poses"))
    if not names:
        raise InputError(f"{file}: holds neither 'poses' (AMASS) nor '<clip>/poses'; found {npz.files[:4]}")
    clips, table = {}, read_table(file, npz)
    for name in names:
        if f"{name}/trans" not in npz.files:
            raise InputError(f"{file}: '{name}/poses' has no '{name}/trans' beside it")
        subject, split = table.get(name, ("", ""))
        clip = _checked(file, name, npz[f"{name}/poses"], npz[f"{name}/trans"], FPS)
        clips[name] = replace(clip, subject=subject, split=split)
    return clips


def _amass(file: Path, arrays: dict[str, np.ndarray], hands: bool) -> MotionClip:
    """AMASS is z up and has the joints of SMPL-H (52) or SMPL-X (55). The first 22 are SMPL's."""
    if "trans" not in arrays:
        raise InputError(f"{file}: an AMASS file needs 'trans' beside 'poses'")
    poses = _real(file, arrays["poses"])
    if poses.ndim != 2 or poses.shape[1] not in (72, 156, 165):
        raise InputError(f"{file}: 'poses' is {poses.shape}, expected (frames, 72) or (frames, 156)")
    rate = next((float(arrays[key]) for key in AMASS_RATES if key in arrays and arrays[key].size == 1), 0.0)
    if not 1 <= rate <= 1000:
        raise InputError(f"{file}: 'mocap_framerate' is missing or not a number of frames a second")
    body = np.zeros((len(poses), 72))
    body[:, :66] = poses[:, :66]
    if poses.shape[1] == 72:
        body[:, 66:] = poses[:, 66:]
    elif hands:
        for column, joint in zip((66, 69), FIRST_FINGERS[poses.shape[1]], strict=True):
            body[:, column : column + 3] = poses[:, 3 * joint : 3 * joint + 3]
    to_y_up = Rotation.from_euler("x", -90, degrees=True)
    body[:, :3] = (to_y_up * Rotation.from_rotvec(body[:, :3])).as_rotvec()
    trans = to_y_up.apply(_real(file, arrays["trans"]).reshape(len(poses), -1)[:, :3])
    return resample(_checked(file, file.stem, body, trans, rate))


def _real(file: Path, values: np.ndarray) -> np.ndarray:
    """The values in double precision; InputError unless they are finite real numbers."""
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise InputError(f"{file}: has values that are not finite real numbers")
    return np.asarray(values, dtype=np.float64)


def _checked(file: Path, name: str, poses: np.ndarray, trans: np.ndarray, fps: float) -> MotionClip:
    poses, trans = np.asarray(poses, dtype=np.float32), np.asarray(trans, dtype=np.float32)
    if len(poses) < 2 or poses[0].size != 72 or trans.shape != (len(poses), 3):
        raise InputError(
            f"{file}: clip '{name}' has poses {poses.shape}, trans {trans.shape}; expected (N, 72), (N, 3), N > 1"
        )
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise InputError(f"{file}: clip '{name}' has values that are not finite numbers")
    if np.abs(poses).max() > MOST_RADIANS:
        raise InputError(f"{file}: clip '{name}' turns a joint by {np.abs(poses).max():.3g} rad; are these radians?")
    return MotionClip(poses.reshape(-1, 24, 3), trans, fps)
