"""3DPW's folders in (von Marcard et al. 2018), clips out: one for each person in a sequence.

imageFiles/<sequence>/image_00000.jpg and sequenceFiles/{train,validation,test}/<sequence>.pkl (Python-2 pickles). A
sample that make_sample rendered has these folders, too, and the frame rates of its sequences in sample.json.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.features.dataset_folders import SAMPLE_FILE
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import COMMON14, SPIN49, THREEDPW_2D, match
from glot.human.safe_pickle import load_pickle
from glot.people.boxes import VISIBLE, keypoint_boxes
from pipelines.decoders.box_variants import misaligned
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit
from pipelines.decoders.source_entries import NOTHING, Before, check_root, unit_of_pictures

SPLITS = ("train", "validation", "test")
FPS = 30.0  # of 3DPW itself, and of samples whose sample.json has no frame rates
ENLARGE = 1.1
REFERENCE_FEATURE_SCALE = 1.3  # crop scale of the published features; their 2D targets are at 1.2
FEWEST_VISIBLE = 7  # of the 12 limb joints; with this rule the counts are the published ones
REFERENCE = (
    f"features cropped at {REFERENCE_FEATURE_SCALE}, 2D targets at {DEFAULT_CROP_SCALE}; median padded with zeros; "
    "boxes late by the frames before a person is first seen; joints3d with the world's translation; targets of float16"
)
LIMBS = match(THREEDPW_2D, COMMON14)  # 12 pairs; eyes, ears, nose and OpenPose's neck have no counterpart
LIMBS_IN_2D = [source for source, _ in LIMBS]
LIMBS_IN_SPIN49 = [SPIN49.index(COMMON14[target]) for _, target in LIMBS]
HIPS = [SPIN49.index("rhip"), SPIN49.index("lhip")]
GENDERS = {"m": "male", "f": "female", "male": "male", "female": "female"}
FRAMES_AT_ONCE = 512  # frames that the body model computes at once, so that its memory is bounded
# The decoder reads these fields, lists with an array (N frames, ...) for each person. Only "reference" needs ``trans``.
PERSON_FIELDS: dict[str, tuple[int, ...]] = {"poses": (72,), "poses2d": (3, 18), "campose_valid": ()}
TRANS: dict[str, tuple[int, ...]] = {"trans": (3,)}


def find_units(root: Path, split: str, before: Before = NOTHING) -> list[Unit]:
    """The sequences of a split, sorted by name. One without pictures is listed too; decoding it reports that."""
    check_root(root)
    folder = root / "sequenceFiles" / split
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; --root must hold 3DPW's sequenceFiles/ and imageFiles/")
    files = sorted(folder.glob("*.pkl"))
    if not files:
        raise InputError(f"{folder}: no .pkl files in it; unpack 3DPW's sequenceFiles.zip there")
    if not (root / "imageFiles").is_dir():
        raise InputError(f"{root / 'imageFiles'}: there is no such folder; unpack 3DPW's imageFiles.zip into --root")
    rates = sample_rates(root)
    units = [unit_of_pictures(root, file, f"imageFiles/{file.stem}", before) for file in files]
    return [replace(unit, facts={"fps": rates[unit.name]}) if unit.name in rates else unit for unit in units]


def sample_rates(root: Path) -> dict[str, float]:
    """The frame rates (frames/s) of a rendered sample's sequences by their names; {} if its sample.json has none.

    {} for 3DPW itself, too, which has no sample.json.
    """
    file = root / SAMPLE_FILE
    if not file.is_file():
        return {}
    try:
        rates = json.loads(file.read_text()).get("fps", {})
        rates = {str(name): float(rate) for name, rate in rates.items()}
    except (ValueError, AttributeError, TypeError, OverflowError):
        raise InputError(f"{file}: damaged; remove {root} and render the sample again") from None
    if wrong := [name for name, rate in rates.items() if not (rate > 0 and math.isfinite(rate))]:
        raise InputError(f"{file}: the frame rate of {wrong[0]} is {rates[wrong[0]]:g}; render the sample again")
    return rates


def decode(root: Path, unit: Unit, body: Body, preprocessing: str) -> Decoded:
    """The clips of all people in a sequence who are visible in some frame.

    Rows: the frames from a person's first visible frame to the last in which at least 7 of the 12 limb joints have a
    confidence above 0.3.
    keypoints2d: these 12 joints in slots 25-36; confidence 1 where the source has more than 0.3, otherwise 0.
    pose: the root rotated into the camera frame, R_camera R_root.
    betas: the parameters of the gendered body, as in all published work.
    joints3d: the 49 joints of the neutral body with this pose and these betas, metres, camera frame, relative to the
    pelvis, which is the mean of the hips (slots 27 and 28).
    valid: 3DPW's campose_valid. Where the camera's matrix is no rotation, has_3d and has_smpl are false too.

    With "reference" the clips are what TCMR's and GLoT's published inputs contain; REFERENCE lists the differences.
    - joints3d is in a mixed frame: rotated into the camera frame about SMPL's origin, then moved by the world's
      translation. Only differences between joints of one frame have a meaning.
    - Boxes may be shifted, or infinite (see ``box_variants.misaligned``). A row with an infinite box is left out and
      counted. In the published code, the stored boxes of all later people are shifted, too, in the order of a directory
      listing; this is not repeated here.
    """
    reference = preprocessing == "reference"
    data = _read(root, unit, with_trans=reference)
    cameras, rigid = _camera_rotations(data["cam_poses"])
    counts = {"person_frames": 0, "rows": 0, "rows_outside_visible": 0, "rows_too_few_joints": 0, "rows_without_box": 0}
    counts["cameras_not_rigid"] = int((~rigid).sum())
    clips = []
    for person in range(len(data["poses2d"])):
        frames, bbox, visible, person_counts = _rows(data["poses2d"][person], reference=reference)
        for name, count in person_counts.items():
            counts[name] += count
        if not len(frames):
            continue
        pose, betas, joints3d = _labels(data, person, frames, cameras, body, reference=reference)
        clips.append(
            Clip(
                track_id=f"{unit.name}_{person}",
                fps=float(unit.facts.get("fps", FPS)),
                crop_scale=DEFAULT_CROP_SCALE,
                gender=data["genders"][person],
                frame_index=frames,
                image=[f"{unit.images}/image_{frame:05d}.jpg" for frame in frames],
                bbox=bbox,
                keypoints2d=_keypoints(data["poses2d"][person][frames], visible),
                joints3d=joints3d,
                joints3d_valid=np.ones(joints3d.shape[:2], bool),
                pose=pose,
                betas=betas,
                has_3d=rigid[frames],
                has_smpl=rigid[frames],
                valid=data["campose_valid"][person][frames] & rigid[frames],
                feature_scale=REFERENCE_FEATURE_SCALE if reference else None,
            )
        )
    return Decoded(clips, counts)


def _rows(
    keypoints: NDArray[np.float64], *, reference: bool
) -> tuple[NDArray[np.integer], NDArray[np.float64], NDArray[np.bool_], dict[str, int]]:
    """Frames (n,) of a person that become rows, their boxes (n, 4), which limbs are visible (n, 12), and counts.

    ``keypoints`` (N, 18, 3) of all frames of the sequence.
    """
    boxes = keypoint_boxes(keypoints, enlarge=ENLARGE, zero_padded=reference)
    bbox = misaligned(boxes) if reference else boxes.bbox
    frames = np.arange(boxes.start, boxes.stop)
    visible = keypoints[frames][:, LIMBS_IN_2D, 2] > VISIBLE
    enough, boxed = visible.sum(1) >= FEWEST_VISIBLE, np.isfinite(bbox).all(1)
    kept = enough & boxed
    counts = {
        "person_frames": len(keypoints),
        "rows": int(kept.sum()),
        "rows_outside_visible": len(keypoints) - len(frames),
        "rows_too_few_joints": int((~enough).sum()),
        "rows_without_box": int((enough & ~boxed).sum()),
    }
    return frames[kept], bbox[kept], visible[kept], counts


def _keypoints(keypoints: NDArray[np.float64], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Keypoints (n, 18, 3) of the file and which limbs are visible (n, 12) -> (n, 49, 3) with confidence 0 or 1."""
    keypoints2d = np.zeros((len(keypoints), len(SPIN49), 3))
    keypoints2d[:, LIMBS_IN_SPIN49, :2] = keypoints[:, LIMBS_IN_2D, :2]
    keypoints2d[:, LIMBS_IN_SPIN49, 2] = visible
    return keypoints2d


def _labels(
    data: dict[str, Any],
    person: int,
    frames: NDArray[np.integer],
    cameras: NDArray[np.float64],
    body: Body,
    *,
    reference: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """pose (n, 24, 3) in the camera frame, betas (n, 10) and joints3d (n, 49, 3) m of a person in n frames."""
    pose = data["poses"][person][frames].reshape(-1, 24, 3)
    rotmats = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    rotmats[:, 0] = cameras[frames] @ rotmats[:, 0]
    pose[:, 0] = Rotation.from_matrix(rotmats[:, 0]).as_rotvec()
    betas = np.repeat(data["betas"][person][None, :10], len(frames), 0)
    joints3d = _joints(body, rotmats, betas)
    if reference:
        return pose, betas, joints3d + data["trans"][person][frames, None]
    return pose, betas, joints3d - joints3d[:, HIPS].mean(1, keepdims=True)


def _read(root: Path, unit: Unit, *, with_trans: bool) -> dict[str, Any]:
    """The fields that are used, checked and in one form. N frames, P people.

    cam_poses (N, 4, 4); lists of P: poses (N, 72), betas (10+,), poses2d (N, 18, 3), campose_valid (N,) bool, genders;
    with ``with_trans`` also trans (N, 3).
    """
    raw = load_pickle(root / unit.annotation)
    fields = PERSON_FIELDS | (TRANS if with_trans else {})
    frames, people = _check_fields(unit, raw, fields)
    data: dict[str, Any] = {"cam_poses": _numbers(unit, "cam_poses", raw["cam_poses"], (frames, 4, 4), finite=False)}
    for key, shape in fields.items():
        data[key] = [_numbers(unit, f"{key}[{i}]", value, (frames, *shape)) for i, value in enumerate(raw[key])]
    data["betas"] = [_numbers(unit, f"betas[{i}]", value, None).ravel() for i, value in enumerate(raw["betas"])]
    if min(map(len, data["betas"])) < 10:
        raise InputError(f"{unit.annotation}: fewer than 10 betas")
    data["poses2d"] = [value.transpose(0, 2, 1) for value in data["poses2d"]]
    data["campose_valid"] = [value.astype(bool) for value in data["campose_valid"]]
    genders = raw.get("genders", ["neutral"] * people)
    data["genders"] = [GENDERS.get(str(gender).lower(), "neutral") for gender in genders]
    if len(genders) != people:
        raise InputError(f"{unit.annotation}: {people} people, {len(genders)} genders")
    if not (root / unit.images).is_dir():
        raise InputError(f"{unit.images}: there is no such folder, but {unit.annotation} needs its {frames} pictures")
    return data


def _check_fields(unit: Unit, raw: Any, fields: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """The numbers of frames and of people; InputError where the content is no sequence of 3DPW."""
    if not isinstance(raw, dict):
        raise InputError(f"{unit.annotation}: holds a {type(raw).__name__}, not a 3DPW sequence")
    if missing := [key for key in (*fields, "betas", "cam_poses", "img_frame_ids") if key not in raw]:
        raise InputError(f"{unit.annotation}: no {', '.join(missing)} in it, so it is not a 3DPW sequence")
    for key in (*fields, "betas"):
        if not isinstance(raw[key], (list, tuple, np.ndarray)):
            raise InputError(
                f"{unit.annotation}: {key} is of type {type(raw[key]).__name__}, not a list with an item per person"
            )
    frames, people = np.asarray(raw["img_frame_ids"]).size, len(raw["poses"])
    for key in (*fields, "betas"):
        if len(raw[key]) != people:
            raise InputError(f"{unit.annotation}: {people} people have poses, {len(raw[key])} have {key}")
    if not people or not frames:
        raise InputError(f"{unit.annotation}: {people} people, {frames} frames, so nothing to extract")
    return frames, people


def _numbers(
    unit: Unit, name: str, value: Any, shape: tuple[int, ...] | None, *, finite: bool = True
) -> NDArray[np.float64]:
    """The field called ``name`` as an array of ``shape`` (None: any); InputError where it is not."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{unit.annotation}: {name} is not an array of numbers") from None
    if shape is not None and array.shape != shape:
        raise InputError(f"{unit.annotation}: {name} is {array.shape}, expected {shape}")
    if finite and not np.isfinite(array).all():
        raise InputError(f"{unit.annotation}: {name} holds NaN or infinite values")
    return array


def _camera_rotations(cam_poses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """World-to-camera rotations (N, 3, 3), and a mask (N,): False where the matrix is no rotation but the identity."""
    cameras = cam_poses[:, :3, :3]
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(cameras @ cameras.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        rigid = (off < 1e-3) & (np.linalg.det(np.nan_to_num(cameras)) > 0)
    return np.where(rigid[:, None, None], cameras, np.eye(3)), rigid


def _joints(body: Body, rotmats: NDArray[np.float64], betas: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 49, 3) m of the body."""
    with torch.no_grad():
        chunks = [
            body.joints(torch.from_numpy(rotmats[i : i + FRAMES_AT_ONCE]).float(),
                        torch.from_numpy(betas[i : i + FRAMES_AT_ONCE]).float())
            for i in range(0, len(rotmats), FRAMES_AT_ONCE)
        ]  # fmt: skip
    return torch.cat(chunks).numpy()


THREEDPW = Decoder(
    splits=SPLITS,
    find=find_units,
    decode=decode,
    box_rule=f"{ENLARGE} x diagonal of joints above {VISIBLE}; median 11 frames, edges repeated; Gaussian 8 frames",
    crop_scale=DEFAULT_CROP_SCALE,
    reference=REFERENCE,
    cuttable=True,
)
