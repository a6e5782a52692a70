"""A feature set and its pictures in, one picture out: crops from all over the set with their 2D joints drawn."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import Manifest, parts
from glot.human.crop import CROP_SIZE, crop_matrix
from glot.human.joints import COMMON14_BONES, SPIN49
from glot.location import open_parquet
from pipelines.decoders.clips import Clip
from pipelines.decoders.frames import Frame, read_crops

COLUMNS, ROWS = 8, 4
CAPTION = 32  # px below a crop, for two lines
COLUMNS_READ = ("track_id", "frame_index", "image", "fps", "crop_scale", "gender", "bbox", "keypoints2d")
# The 49 hold two halves; of a joint in both, only one is annotated.
OPENPOSE_BONES = (
    ("OP Neck", "OP RShoulder"), ("OP RShoulder", "OP RElbow"), ("OP RElbow", "OP RWrist"), ("OP Neck", "OP LShoulder"),
    ("OP LShoulder", "OP LElbow"), ("OP LElbow", "OP LWrist"), ("OP RHip", "OP RKnee"), ("OP RKnee", "OP RAnkle"),
    ("OP LHip", "OP LKnee"), ("OP LKnee", "OP LAnkle"), ("OP RHip", "OP LHip"), ("OP Nose", "OP Neck"),
)  # fmt: skip
BONES = [(SPIN49.index(one), SPIN49.index(other)) for one, other in (*COMMON14_BONES, *OPENPOSE_BONES)]
LEFT = [name.removeprefix("OP ").lower().startswith("l") for name in SPIN49]
COLOURS = {True: (255, 160, 40), False: (60, 60, 255)}  # BGR: left blue, right (and middle) red
SHADOW, WHITE = (0, 0, 0), (255, 255, 255)


def write_sheet(file: Path, folder: Path, manifest: Manifest, root: Path) -> int:
    """Writes the sheet of the set in ``folder``, its pictures below ``root``; returns how many could not be read.

    Crops are at the stored crop_scale, where the 2D targets are, and without occluders. InputError where not one
    picture can be read: it is the wrong root, or a set without pictures.
    """
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder; give the one the features were extracted from")
    clips = choose(folder, manifest)
    tiles: list[NDArray[np.uint8] | None] = [None] * len(clips)
    unread, first = 0, ""
    for frame in read_crops(root, clips):
        for number, (at, _) in enumerate(frame.people):
            tiles[at] = tile(clips[at], frame, number)
        if frame.reason:
            unread += len(frame.people)
            first = first or f"{frame.image} ({frame.reason})"
    if unread == len(clips):
        raise InputError(f"--root {root}: no picture of the set can be read, such as {first}")
    drawn = [each for each in tiles if each is not None]
    across = min(COLUMNS, len(drawn))
    drawn += [np.zeros_like(drawn[0])] * (-len(drawn) % across)
    lines = [np.hstack(drawn[start : start + across]) for start in range(0, len(drawn), across)]
    file.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.haveImageWriter(str(file)) or not cv2.imwrite(str(file), np.vstack(lines)):
        raise InputError(f"--sheet {file}: cannot be written as a picture; name it .png or .jpg")
    return unread


def choose(folder: Path, manifest: Manifest) -> list[Clip]:
    """Single rows, evenly spread over the set, as clips of one frame."""
    wanted = np.unique(np.linspace(0, max(manifest.rows - 1, 0), COLUMNS * ROWS).round().astype(int))
    clips: list[Clip] = []
    start = 0
    for path in parts(folder, manifest):
        with open_parquet(path) as file:
            for group in range(file.metadata.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if len(here := wanted[(wanted >= start) & (wanted < stop)]):
                    table = file.read_row_group(group, columns=list(COLUMNS_READ)).take(pa.array(here - start))
                    clips += [_clip(row) for row in table.to_pylist()]
                start = stop
    if not clips:
        raise InputError(f"{folder}: no rows in it, so no sheet")
    return clips


def tile(clip: Clip, frame: Frame, number: int) -> NDArray[np.uint8]:
    """(224 + caption, 224, 3) BGR: crop ``number`` of the frame with its joints, or the reason why there is none."""
    out = np.zeros((CROP_SIZE + CAPTION, CROP_SIZE, 3), np.uint8)
    if frame.crops is None:
        out[:CROP_SIZE] = 96
        _write(out, frame.reason[:36], CROP_SIZE // 2)
    else:
        crop = np.ascontiguousarray(frame.crops[number][..., ::-1])
        draw(crop, clip.keypoints2d[0], crop_matrix(clip.bbox[0], clip.crop_scale))
        out[:CROP_SIZE] = crop
    out[:, 0] = WHITE
    seen = int((clip.keypoints2d[0, :, 2] > 0).sum())
    _write(out, clip.track_id[-36:], CROP_SIZE + 12)
    _write(out, f"frame {clip.frame_index[0]}, {seen} joints, box {clip.bbox[0][2]:.0f} px", CROP_SIZE + 26)
    return out


def draw(crop: NDArray[np.uint8], keypoints2d: NDArray[np.floating], matrix: NDArray[np.floating]) -> None:
    """Draws the seen ones of (49, 3) keypoints, px of the picture, into a BGR crop; ``matrix`` (2, 3) leads there."""
    points = keypoints2d[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    there = (keypoints2d[:, 2] > 0) & (np.abs(points) < 16 * CROP_SIZE).all(1)  # OpenCV overflows far outside
    places = [tuple(int(value) for value in point) for point in np.where(there[:, None], points, 0).round()]
    for width, shadow in ((3, True), (1, False)):
        for one, other in BONES:
            if there[one] and there[other]:
                colour = SHADOW if shadow else COLOURS[LEFT[one] and LEFT[other]]
                cv2.line(crop, places[one], places[other], colour, width, cv2.LINE_AA)
        for joint in np.flatnonzero(there):
            colour = SHADOW if shadow else COLOURS[LEFT[joint]]
            cv2.circle(crop, places[joint], width + 1, colour, -1, cv2.LINE_AA)


def _clip(row: dict[str, Any]) -> Clip:
    none = np.zeros(1, bool)
    return Clip(
        track_id=row["track_id"],
        fps=row["fps"],
        crop_scale=row["crop_scale"],
        gender=row["gender"],
        frame_index=np.array([row["frame_index"]]),
        image=[row["image"]],
        bbox=np.array([row["bbox"]]),
        keypoints2d=np.array([row["keypoints2d"]]),
        joints3d=np.zeros((1, len(SPIN49), 3)),
        joints3d_valid=np.zeros((1, len(SPIN49)), bool),
        pose=np.zeros((1, 24, 3)),
        betas=np.zeros((1, 10)),
        has_3d=none,
        has_smpl=none,
        valid=none,
    )


def _write(picture: NDArray[np.uint8], text: str, bottom: int) -> None:
    letters = text.encode("ascii", "replace").decode()  # all that OpenCV's letters have
    cv2.putText(picture, letters, (4, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.36, WHITE, 1, cv2.LINE_AA)
