"""The parsed JSON release of Human3.6M in, clips out: pictures, cameras, motion capture, NeuralAnnot's SMPL fits.

images/s_SS_act_AA_subact_BB_ca_CC/<the same>_FFFFFF.jpg at 50 fps, numbered from 1, and
annotations/Human36M_subject{S}_{camera,joint_3d,SMPL_NeuralAnnot}.json with frames numbered from 0.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from glot.errors import InputError, raise_if_passing
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import COMMON14, SPIN49
from glot.people.boxes import keypoint_boxes
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit
from pipelines.decoders.dataset_facts import HUMAN36M17
from pipelines.decoders.human36m_files import (
    CAMERA,
    FIT,
    FOLDER,
    JOINT,
    Camera,
    Sequence,
    file_name,
    read_camera,
    read_fits,
    read_joints,
    sequence_of,
)
from pipelines.decoders.source_entries import NOTHING, Before, check_root, file_source, pictures_source

SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11), "test_front": (9, 11)}
FRONT_CAMERA = 4  # 60457274, the only camera of "test_front", as in the older protocols
FPS = 50.0  # frame rate of the videos; frame_index counts at this rate
STEP = 2  # every second frame becomes a row: 25 per second
ENLARGE = 1.1
DAMAGED = "s_11_act_02_subact_02_ca_01"  # this video is damaged in the source, and all published sets leave it out
SLOTS = [SPIN49.index(name) for name in HUMAN36M17]
LIMBS = [HUMAN36M17.index(name) for name in COMMON14[:12]]
HIP, R_HIP, L_HIP = (SPIN49.index(name) for name in ("hip", "rhip", "lhip"))
FEWEST_IN_PICTURE = 0.5  # share of all joints; if fewer are in the picture, the camera does not belong to it
FARTHEST_FIT = 0.3  # m, mean error of limb joints: right fits are off by centimetres, wrongly rotated ones by 0.5 m
COMPARED_FITS = 64  # number of compared fits of a sequence, at equal intervals


def find_units(root: Path, split: str, before: Before = NOTHING) -> list[Unit]:
    """The folders of the subjects of a split, sorted by name; ``test_front`` has only the folders of one camera.

    No annotation file is opened. Pictures are counted, but their sizes are not read: 1.6 million stat calls would take
    longer than everything else.
    """
    check_root(root)
    for name, remedy in (("images", "images.zip"), ("annotations", "the annotation files")):
        if not (root / name).is_dir():
            raise InputError(f"{root / name}: there is no such folder; put the parsed Human3.6M's {remedy} there")
    with os.scandir(root / "images") as entries:
        names = sorted(entry.name for entry in entries if FOLDER.fullmatch(entry.name) and entry.is_dir())
    wanted = [name for name in names if _belongs(sequence_of(name), split)]
    if not wanted:
        subjects = ", ".join(map(str, SUBJECTS[split]))
        raise InputError(f"{root / 'images'}: no folder such as {DAMAGED} of subjects {subjects}; unpack them there")
    return [_unit(root, name, before) for name in wanted]


def decode(root: Path, unit: Unit, body: Body, preprocessing: str) -> Decoded:
    """The clip of the one person in a folder: every second frame, if it has a picture and motion capture.

    keypoints2d: the 17 motion-capture joints projected into the picture, confidence 1.
    bbox: smoothed at 50 fps, then every second box.
    joints3d: the same joints in the camera frame, relative to the mean of the hips. Unknown joints are 0 and not valid.
    pose: NeuralAnnot's, with the root rotated into the camera frame. Frames without a fit: has_smpl false, zeros.
    "reference" repeats the published files: the median filter is padded with zeros, joints are relative to the joint
    ``hip``, and a joint that the source does not have is at minus the hip's position.

    Two conventions differ between copies of the files, so they are found from the data: whether the camera adds t after
    the rotation or subtracts it before, and whether the fits are in the world frame or in the camera frame.
    Some annotations of subject 9 are known to be shifted (Greeting, SittingDown, Waiting); they are kept, as in all
    published sets.

    Memory: one sequence of a subject's files, about 50 MB. Time: a worker scans each annotation file once (about a
    second) and then reads single sequences by position; the order of the units does not matter.
    """
    reference = preprocessing == "reference"
    if unit.name == DAMAGED:
        raise InputError(
            f"{unit.images}: this video is damaged in Human3.6M itself, and all published sets leave it out"
        )
    sequence = sequence_of(unit.name)
    pictures = _pictures(root, unit)
    first = int(pictures[0])
    world, counts = read_joints(root, sequence, pictures)  # from the first picture to the last, at 50 fps
    camera = read_camera(root, sequence)
    in_camera, pixels, counts["cameras_subtract_first"] = _projected(sequence, camera, world)
    confidence = np.nan_to_num(in_camera[..., 2]) > 0
    keypoints = np.concatenate([np.where(confidence[..., None], pixels, 0.0), confidence[..., None]], -1)
    boxes = keypoint_boxes(keypoints, enlarge=ENLARGE, zero_padded=reference)
    rows, bbox = np.arange(boxes.start, boxes.stop, STEP), boxes.bbox[::STEP]
    labelled = np.isin(rows + first, pictures) & confidence[rows].any(1)
    boxed = np.isfinite(bbox).all(1) & (bbox[:, 2] > 0)
    rows, bbox = rows[labelled & boxed], bbox[labelled & boxed]
    counts |= {"rows": len(rows), "rows_without_box": int((labelled & ~boxed).sum())}
    if not len(rows):
        return Decoded([], counts)
    smpl, fit_counts = _smpl(root, sequence, body, camera, rows + first, world[rows] / 1000, in_camera[rows])
    keypoints2d = np.zeros((len(rows), len(SPIN49), 3))
    keypoints2d[:, SLOTS] = keypoints[rows]
    clip = Clip(
        track_id=unit.name,
        fps=FPS,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=rows + first,
        image=[f"{unit.images}/{unit.name}_{frame + 1:06d}.jpg" for frame in rows + first],
        bbox=bbox,
        keypoints2d=keypoints2d,
        valid=np.ones(len(rows), bool),
        **_joints3d(in_camera[rows], minus_pelvis=reference),
        **smpl,
    )
    return Decoded([clip], counts | fit_counts)


def _belongs(sequence: Sequence, split: str) -> bool:
    return sequence.subject in SUBJECTS[split] and (split != "test_front" or sequence.camera == FRONT_CAMERA)


def _unit(root: Path, name: str, before: Before) -> Unit:
    images = f"images/{name}"
    sources = [pictures_source(root, images, bool, before, unit=name)]
    for kind in (CAMERA, JOINT, FIT):
        path = file_name(sequence_of(name), kind)
        if (root / path).is_file():
            sources.append(file_source(root, path))
    # An annotation file belongs to a whole subject, so the manifest names the unit by its folder.
    return Unit(name, images, images, sources[0]["files"], tuple(sources))


def _pictures(root: Path, unit: Unit) -> NDArray[np.int64]:
    """Frames (N,) that have a picture, 0-based and ascending; from the names of the pictures, not their order."""
    pattern = re.compile(rf"{unit.name}_(\d{{6}})\.jpg")
    try:
        names = os.listdir(root / unit.images)
    except OSError as error:
        raise_if_passing(error, unit.images)
        raise InputError(f"{unit.images}: {error.strerror}") from None
    numbers = np.array(sorted(int(found[1]) for name in names if (found := pattern.fullmatch(name))), np.int64)
    if not len(numbers):
        raise InputError(f"{unit.images}: no pictures {unit.name}_000001.jpg and so on in it")
    if numbers[0] == 0:
        raise InputError(
            f"{unit.images}: its pictures are numbered from 0, but those of the release from 1; rename them, or each "
            "picture would get the label of the frame before it"
        )
    return numbers - 1


def _projected(
    sequence: Sequence, camera: Camera, world: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Joints (n, 17, 3) mm, world frame -> camera frame (n, 17, 3) m, pixels (n, 17, 2), and 1 for R (X - t), else 0.

    The distributed files mean R X + t. Files that were made again with an older script of the release need R (X - t).
    Only one of the two formulas puts the person into the picture, and it is used.
    """
    after = world @ camera.rotation.T + camera.translation
    before = (world - camera.translation) @ camera.rotation.T
    found = []
    for points in (after, before):
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = points[..., :2] / points[..., 2:] * camera.focal + camera.centre
            inside = (points[..., 2] > 0) & (np.abs(pixels - camera.centre) <= np.abs(camera.centre)).all(-1)
        found.append((inside.sum() / max(np.isfinite(points[..., 0]).sum(), 1), points / 1000, pixels))
    subtract_first = int(found[1][0] > found[0][0])
    share, points, pixels = found[subtract_first]
    if share < FEWEST_IN_PICTURE:
        raise InputError(
            f"{file_name(sequence, CAMERA)}: camera {sequence.camera} does not see the person; R or t is wrong"
        )
    return points, pixels, subtract_first


def _smpl(
    root: Path, sequence: Sequence, body: Body, camera: Camera, frames: NDArray[np.int64],
    world: NDArray[np.float64], in_camera: NDArray[np.float64],
) -> tuple[dict[str, Any], dict[str, int]]:  # fmt: skip
    """The columns pose (n, 24, 3) in the camera frame, betas (n, 10) and has_smpl (n,) of a clip, and counts.

    Frames without a fit have zeros. (The reference cannot leave out the fit of a single frame: its flag is for a whole
    dataset.) ``world`` and ``in_camera`` are the motion capture (n, 17, 3) m in both frames of reference.
    """
    fits, unreadable = read_fits(root, sequence)
    found = [fits.get(frame) for frame in frames.tolist()]
    has_smpl = np.array([fit is not None for fit in found], bool)
    values = np.array([np.zeros(82) if fit is None else fit for fit in found])
    pose, betas = values[:, :72].reshape(-1, 24, 3), values[:, 72:]
    frame = _frame_of_fits(body, pose, betas, has_smpl, world, in_camera)
    counts = {
        "smpl_unreadable": unreadable,
        "smpl_in_camera_frame": int(has_smpl.sum()) if frame == "camera" else 0,
        "smpl_disagrees": int(has_smpl.sum()) if frame == "neither" else 0,
    }
    if frame == "neither":
        pose[:], betas[:], has_smpl[:] = 0, 0, False
    elif frame == "world" and has_smpl.any():
        rotated = Rotation.from_matrix(camera.rotation) * Rotation.from_rotvec(pose[has_smpl, 0])
        pose[has_smpl, 0] = rotated.as_rotvec()
    counts["rows_without_smpl"] = int((~has_smpl).sum())
    return {"pose": pose, "betas": betas, "has_smpl": has_smpl}, counts


def _frame_of_fits(
    body: Body, pose: NDArray[np.float64], betas: NDArray[np.float64], has_smpl: NDArray[np.bool_],
    world: NDArray[np.float64], in_camera: NDArray[np.float64],
) -> str:  # fmt: skip
    """The frame of reference of the poses: "world" (the public files), "camera", or "neither".

    The limbs of some fits are compared with the motion capture (n, 17, 3) m in both frames. Nothing else distinguishes
    an older file, or the file of another subject, from the right one.
    """
    usable = np.flatnonzero(has_smpl & np.isfinite(world[:, LIMBS]).all((1, 2)))
    if not len(usable):
        return "world"
    some = usable[np.linspace(0, len(usable) - 1, min(COMPARED_FITS, len(usable))).astype(int)]
    rotmats = Rotation.from_rotvec(pose[some].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    with torch.no_grad():
        joints = body.joints(torch.from_numpy(rotmats).float(), torch.from_numpy(betas[some]).float()).numpy()
    fitted = joints[:, [SLOTS[limb] for limb in LIMBS]]
    distance = {"neither": FARTHEST_FIT}
    for name, truth in (("world", world[some][:, LIMBS]), ("camera", in_camera[some][:, LIMBS])):
        difference = fitted - fitted.mean(1, keepdims=True) - truth + truth.mean(1, keepdims=True)
        distance[name] = float(np.linalg.norm(difference, axis=-1).mean())
    return min(distance, key=lambda name: distance[name])


def _joints3d(in_camera: NDArray[np.float64], *, minus_pelvis: bool) -> dict[str, Any]:
    """The columns joints3d (n, 49, 3), joints3d_valid (n, 49) and has_3d (n,) of a clip.

    ``in_camera`` (n, 17, 3) m. Joints are relative to the pelvis, the mean of the hips, or the joint ``hip`` where one
    of the hips is unknown. A frame with neither has no 3D.
    ``minus_pelvis`` is for "reference": the pelvis is the joint ``hip``, and unknown joints are at minus the pelvis.
    """
    joints = np.full((len(in_camera), len(SPIN49), 3), np.nan)
    joints[:, SLOTS] = in_camera
    pelvis = joints[:, HIP].copy()
    if not minus_pelvis:
        hips = joints[:, [R_HIP, L_HIP]].mean(1)
        pelvis = np.where(np.isfinite(hips), hips, pelvis)
    relative = joints - pelvis[:, None]
    known = np.isfinite(relative).all(2)
    if minus_pelvis:  # the reference subtracts the hip from all 49 joints, also from the zeros of unknown ones
        relative = np.where(known[..., None], relative, -pelvis[:, None])
    # NaN is now in unknown joints, and in frames without a pelvis.
    return {"joints3d": np.nan_to_num(relative), "joints3d_valid": known, "has_3d": known.any(1)}


HUMAN36M = Decoder(
    splits=tuple(SUBJECTS),
    find=find_units,
    decode=decode,
    box_rule=f"{ENLARGE} x diagonal of the 17 joints at 50 fps; median 11 frames, edges repeated; Gaussian 8 frames",
    crop_scale=DEFAULT_CROP_SCALE,
    reference="median padded with zeros; joints3d relative to the joint hip, unknown ones at minus the hip; float16",
    cuttable=True,
)
