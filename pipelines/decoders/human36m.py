"""Human3.6M in its parsed JSON release in (pictures, cameras, motion capture, NeuralAnnot's SMPL fits), clips out.

images/s_SS_act_AA_subact_BB_ca_CC/<the same>_FFFFFF.jpg at 50 fps, numbered from 1, and
annotations/Human36M_subject{S}_{camera,joint_3d,SMPL_NeuralAnnot}.json, whose frames are numbered from 0.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import COMMON14, SPIN49
from glot.people.boxes import keypoint_boxes
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit
from pipelines.decoders.human36m_files import (
    CAMERA,
    FIT,
    FOLDER,
    JOINT,
    JOINTS,
    Camera,
    Sequence,
    file_name,
    read_camera,
    read_fits,
    read_joints,
    sequence_of,
)

SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11), "test_front": (9, 11)}
FRONT_CAMERA = 4  # 60457274, the only one of "test_front", as in the older protocols
FPS = 50.0  # what frame_index counts
STEP = 2  # rows are every second frame, 25 a second
ENLARGE = 1.1
BROKEN = "s_11_act_02_subact_02_ca_01"  # its video is damaged in the source; everybody leaves it out
SLOTS = [SPIN49.index(name) for name in JOINTS]
LIMBS = [JOINTS.index(name) for name in COMMON14[:12]]
HIP, R_HIP, L_HIP = (SPIN49.index(name) for name in ("hip", "rhip", "lhip"))
FEWEST_IN_PICTURE = 0.5  # of the joints, or the camera is not that of the pictures
FARTHEST_FIT = 0.3  # m, mean over limb joints; fits are off by centimetres, turned ones by half a metre
COMPARED_FITS = 64  # of a sequence, evenly spaced


def find_units(root: Path, split: str) -> list[Unit]:
    """The folders of a split's subjects (``test_front``: of one camera), by name. No annotation file is opened.

    A picture's name is read but not its size: 1.6 million stat calls would take longer than all the rest.
    """
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder")
    for name, remedy in (("images", "images.zip"), ("annotations", "the annotation files")):
        if not (root / name).is_dir():
            raise InputError(f"{root / name}: there is no such folder; put the parsed Human3.6M's {remedy} there")
    with os.scandir(root / "images") as entries:
        names = sorted(entry.name for entry in entries if FOLDER.fullmatch(entry.name) and entry.is_dir())
    wanted = [name for name in names if _belongs(sequence_of(name), split)]
    if not wanted:
        subjects = ", ".join(map(str, SUBJECTS[split]))
        raise InputError(f"{root / 'images'}: no folder such as {BROKEN} of subjects {subjects}; unpack them there")
    return [_unit(root, name) for name in wanted]


def decode(root: Path, unit: Unit, body: Body, preprocessing: str) -> Decoded:
    """The clip of a folder's one person: every second frame of those with a picture and motion capture.

    keypoints2d: the 17 motion-capture joints projected, confidence 1. bbox: smoothed at 50 fps, then every second one.
    joints3d: those joints in the camera frame, relative to the mean of the hips; unknown ones are 0 and not valid.
    pose: NeuralAnnot's, the root turned into the camera; frames without a fit have has_smpl false and zeros.
    "reference" is as the published files: the median's zero padding, joints relative to the joint ``hip``, and minus
    the hip's position where the source has no such joint. Two things in the files are told by the data, not by trust:
    whether t is added before or after the rotation, and whether the fits are in the world's or the camera's frame.
    Subject 9's annotations that are known to be shifted (Greeting, SittingDown, Waiting) are kept, as everywhere.

    Memory: one sequence of a subject's files, some 50 MB. Time: a worker looks through each file once (about a second),
    whatever order the units come in, and then reads single sequences by position.
    """
    reference = preprocessing == "reference"
    if unit.name == BROKEN:
        raise InputError(f"{unit.images}: this video is damaged in Human3.6M itself and is left out by everybody")
    sequence = sequence_of(unit.name)
    pictures = _pictures(root, unit)
    first = int(pictures[0])
    world, counts = read_joints(root, sequence, pictures)  # from the first picture to the last, at 50 fps
    camera = read_camera(root, sequence)
    seen, pixels, counts["cameras_subtract_first"] = _seen(sequence, camera, world)
    confidence = np.nan_to_num(seen[..., 2]) > 0
    keypoints = np.concatenate([np.where(confidence[..., None], pixels, 0.0), confidence[..., None]], -1)
    boxes = keypoint_boxes(keypoints, enlarge=ENLARGE, zero_padded=reference)
    rows, bbox = np.arange(boxes.start, boxes.stop, STEP), boxes.bbox[::STEP]
    labelled = np.isin(rows + first, pictures) & confidence[rows].any(1)
    good = np.isfinite(bbox).all(1) & (bbox[:, 2] > 0)
    rows, bbox = rows[labelled & good], bbox[labelled & good]
    counts |= {"rows": len(rows), "rows_without_box": int((labelled & ~good).sum())}
    if not len(rows):
        return Decoded([], counts)
    pose, betas, has_smpl, of_fits = _smpl(root, sequence, body, camera, rows + first, world[rows] / 1000, seen[rows])
    keypoints2d = np.zeros((len(rows), len(SPIN49), 3))
    keypoints2d[:, SLOTS] = keypoints[rows]
    joints3d, known, has_3d = _rooted(seen[rows], minus_pelvis=reference)
    clip = Clip(
        track_id=unit.name,
        fps=FPS,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=rows + first,
        image=[f"{unit.images}/{unit.name}_{frame + 1:06d}.jpg" for frame in rows + first],
        bbox=bbox,
        keypoints2d=keypoints2d,
        joints3d=joints3d,
        joints3d_valid=known,
        pose=pose,
        betas=betas,
        has_3d=has_3d,
        has_smpl=has_smpl,
        valid=np.ones(len(rows), bool),
    )
    return Decoded([clip], counts | of_fits)


def _belongs(sequence: Sequence, split: str) -> bool:
    return sequence.subject in SUBJECTS[split] and (split != "test_front" or sequence.camera == FRONT_CAMERA)


def _unit(root: Path, name: str) -> Unit:
    images = f"images/{name}"
    frames = len(os.listdir(root / images))
    sources: list[dict[str, Any]] = [{"path": images, "files": frames}]
    for kind in (CAMERA, JOINT, FIT):
        path = file_name(sequence_of(name), kind)
        if (root / path).is_file():
            sources.append({"path": path, "bytes": (root / path).stat().st_size})
    # The annotation files are a whole subject's, so the folder stands for the unit in the manifest.
    return Unit(name, images, images, frames, tuple(sources))


def _pictures(root: Path, unit: Unit) -> NDArray[np.int64]:
    """Frames (N,) that have a picture, 0-based and rising. Pictures say which frame they are, their place does not."""
    pattern = re.compile(rf"{unit.name}_(\d{{6}})\.jpg")
    try:
        names = os.listdir(root / unit.images)
    except OSError as error:
        raise InputError(f"{unit.images}: {error.strerror}") from None
    numbers = np.array(sorted(int(found[1]) for name in names if (found := pattern.fullmatch(name))), np.int64)
    if not len(numbers):
        raise InputError(f"{unit.images}: no pictures {unit.name}_000001.jpg and so on in it")
    if numbers[0] == 0:
        raise InputError(
            f"{unit.images}: its pictures are numbered from 0, those of the release from 1; rename them, or every "
            "label would be of the frame before"
        )
    return numbers - 1


def _seen(
    sequence: Sequence, camera: Camera, world: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Joints (n, 17, 3) mm -> in the camera frame (n, 17, 3) m, in the picture (n, 17, 2) px, and 1 if it is R (X - t).

    The distributed files mean R X + t; files made anew with the release's own older script need R (X - t). Only one of
    them puts the person into the picture, so that is the one taken.
    """
    after = world @ camera.rotation.T + camera.translation
    before = (world - camera.translation) @ camera.rotation.T
    found = []
    for points in (after, before):
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = points[..., :2] / points[..., 2:] * camera.focal + camera.centre
            inside = (points[..., 2] > 0) & (np.abs(pixels - camera.centre) <= np.abs(camera.centre)).all(-1)
        found.append((inside.sum() / max(np.isfinite(points[..., 0]).sum(), 1), points / 1000, pixels))
    regenerated = int(found[1][0] > found[0][0])
    share, points, pixels = found[regenerated]
    if share < FEWEST_IN_PICTURE:
        raise InputError(
            f"{file_name(sequence, CAMERA)}: camera {sequence.camera} does not see the person; R or t is wrong"
        )
    return points, pixels, regenerated


def _smpl(
    root: Path, sequence: Sequence, body: Body, camera: Camera, frames: NDArray[np.int64],
    world: NDArray[np.float64], seen: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], dict[str, int]]:  # fmt: skip
    """Pose (n, 24, 3) in the camera frame, betas (n, 10), has_smpl (n,), counts; zeros where there is no fit.

    The reference cannot say of a single frame that its fit is missing: its flag is a dataset's.
    """
    fits, unreadable = read_fits(root, sequence)
    found = [fits.get(frame) for frame in frames.tolist()]
    has_smpl = np.array([fit is not None for fit in found], bool)
    values = np.array([np.zeros(82) if fit is None else fit for fit in found])
    pose, betas = values[:, :72].reshape(-1, 24, 3), values[:, 72:]
    frame = _frame_of_fits(body, pose, betas, has_smpl, world, seen)
    counts = {
        "smpl_unreadable": unreadable,
        "smpl_in_camera_frame": int(has_smpl.sum()) if frame == "camera" else 0,
        "smpl_disagrees": int(has_smpl.sum()) if frame == "neither" else 0,
    }
    if frame == "neither":
        pose[:], betas[:], has_smpl[:] = 0, 0, False
    elif frame == "world" and has_smpl.any():
        turned = Rotation.from_matrix(camera.rotation) * Rotation.from_rotvec(pose[has_smpl, 0])
        pose[has_smpl, 0] = turned.as_rotvec()
    return pose, betas, has_smpl, counts | {"rows_without_smpl": int((~has_smpl).sum())}


def _frame_of_fits(
    body: Body, pose: NDArray[np.float64], betas: NDArray[np.float64], has_smpl: NDArray[np.bool_],
    world: NDArray[np.float64], seen: NDArray[np.float64],
) -> str:  # fmt: skip
    """The frame that poses come in: "world" (the public files), "camera", or "neither".

    The limbs of some fits are compared with the motion capture (n, 17, 3) m in either frame; nothing else tells an
    older file, or another subject's, from the right one.
    """
    usable = np.flatnonzero(has_smpl & np.isfinite(world[:, LIMBS]).all((1, 2)))
    if not len(usable):
        return "world"
    some = usable[np.linspace(0, len(usable) - 1, min(COMPARED_FITS, len(usable))).astype(int)]
    rotmats = Rotation.from_rotvec(pose[some].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    with torch.no_grad():
        joints = body.joints(torch.from_numpy(rotmats).float(), torch.from_numpy(betas[some]).float()).numpy()
    fitted = joints[:, [SLOTS[limb] for limb in LIMBS]]
    off = {"neither": FARTHEST_FIT}
    for name, truth in (("world", world[some][:, LIMBS]), ("camera", seen[some][:, LIMBS])):
        difference = fitted - fitted.mean(1, keepdims=True) - truth + truth.mean(1, keepdims=True)
        off[name] = float(np.linalg.norm(difference, axis=-1).mean())
    return min(off, key=lambda name: off[name])


def _rooted(
    seen: NDArray[np.float64], *, minus_pelvis: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Joints (n, 17, 3) in the camera frame -> the 49 relative to the pelvis, which are known (n, 49), has_3d (n,).

    The pelvis is the mean of the hips, or the joint ``hip`` where one is unknown; a frame with neither has no 3D.
    """
    joints = np.full((len(seen), len(SPIN49), 3), np.nan)
    joints[:, SLOTS] = seen
    pelvis = joints[:, HIP].copy()
    if not minus_pelvis:
        hips = joints[:, [R_HIP, L_HIP]].mean(1)
        pelvis = np.where(np.isfinite(hips), hips, pelvis)
    rooted = joints - pelvis[:, None]
    known = np.isfinite(rooted).all(2)
    has_3d = known.any(1)
    if minus_pelvis:  # the reference subtracts the hip from all 49, the unknown zeros too
        rooted = np.where(known[..., None], rooted, -pelvis[:, None])
    # NaN is now in unknown joints, and in whole frames without a pelvis.
    return np.nan_to_num(rooted), known, has_3d


HUMAN36M = Decoder(
    splits=tuple(SUBJECTS),
    find=find_units,
    decode=decode,
    box_rule=f"{ENLARGE} x diagonal of the 17 joints at 50 fps; median 11 frames, edges repeated; Gaussian 8 frames",
    crop_scale=DEFAULT_CROP_SCALE,
    reference="median padded with zeros; joints3d relative to the joint hip, unknown ones at minus the hip; float16",
)
