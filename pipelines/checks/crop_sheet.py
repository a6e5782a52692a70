"""A feature set and its pictures in, a contact sheet out: crops from all parts of the set with their 2D joints."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import Manifest, open_part, parts
from glot.human.crop import CROP_SIZE, crop_matrix
from glot.human.joints import COMMON14_BONES, SPIN49
from glot.pictures.contact_sheet import grid
from glot.pictures.drawing import write
from pipelines.decoders.clips import Clip, without_3d, without_smpl
from pipelines.decoders.frames import Frame, read_crops

COLUMNS, ROWS = 8, 4
CAPTION = 32  # px below a crop, for two lines
PARQUET_COLUMNS = ("track_id", "frame_index", "image", "fps", "crop_scale", "gender", "bbox", "keypoints2d")
# The 49 joints consist of two halves. If a joint is in both halves, a dataset annotates it in one of them only.
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
    """Writes the sheet of the set in ``folder``, whose pictures are below ``root``.

    Returns how many of the chosen pictures could not be read. Crops have the stored crop_scale, which is the scale of
    the 2D targets, and no occluders. InputError where no picture can be read: the root is wrong, or the set has none.
    """
    clips = choose(folder, manifest)
    tiles: dict[int, NDArray[np.uint8]] = {}
    unreadable, first = 0, ""
    for frame in read_crops(root, clips):
        for number, (clip, _) in enumerate(frame.people):
            tiles[clip] = tile(clips[clip], frame, number)
        if frame.crops is None:
            unreadable += len(frame.people)
            first = first or f"{frame.image} ({frame.reason})"
    if unreadable == len(clips):
        raise InputError(f"--root {root}: no picture of the set can be read, such as {first}")
    sheet = grid([tiles[clip] for clip in sorted(tiles)], columns=min(COLUMNS, len(tiles)))
    file.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.haveImageWriter(str(file)) or not cv2.imwrite(str(file), sheet):
        raise InputError(f"--sheet {file}: cannot be written as a picture; name it .png or .jpg")
    return unreadable


def choose(folder: Path, manifest: Manifest) -> list[Clip]:
    """Rows at equal intervals of the set, each as a clip of one frame."""
    wanted = np.unique(np.linspace(0, max(manifest.rows - 1, 0), COLUMNS * ROWS).round().astype(int))
    clips: list[Clip] = []
    start = 0
    for part in parts(folder, manifest):
        with open_part(part, manifest.row_schema) as file:
            for group in range(file.metadata.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if len(in_group := wanted[(wanted >= start) & (wanted < stop)]):
                    table = file.read_row_group(group, columns=list(PARQUET_COLUMNS)).take(pa.array(in_group - start))
                    clips += [_clip(row) for row in table.to_pylist()]
                start = stop
    if not clips:
        raise InputError(f"{folder}: no rows in it, so no sheet")
    return clips


def tile(clip: Clip, frame: Frame, number: int) -> NDArray[np.uint8]:
    """(224 + CAPTION, 224, 3) BGR: crop ``number`` of the frame with its joints, or why the picture is unreadable."""
    out = np.zeros((CROP_SIZE + CAPTION, CROP_SIZE, 3), np.uint8)
    if frame.crops is None:
        out[:CROP_SIZE] = 96
        _write(out, frame.reason[:36], CROP_SIZE // 2)
    else:
        crop = np.ascontiguousarray(frame.crops[number][..., ::-1])
        draw(crop, clip.keypoints2d[0], crop_matrix(clip.bbox[0], clip.scale_of(0)))
        out[:CROP_SIZE] = crop
    out[:, 0] = WHITE
    seen = int((clip.keypoints2d[0, :, 2] > 0).sum())
    _write(out, clip.track_id[-36:], CROP_SIZE + 12)
    _write(out, f"frame {clip.frame_index[0]}, {seen} joints, box {clip.bbox[0][2]:.0f} px", CROP_SIZE + 26)
    return out


def draw(crop: NDArray[np.uint8], keypoints2d: NDArray[np.floating], matrix: NDArray[np.floating]) -> None:
    """Draws the seen joints of ``keypoints2d`` (49, 3: x, y px of the picture, confidence) into a BGR crop.

    ``matrix`` (2, 3) maps pixels of the picture to pixels of the crop.
    """
    points = keypoints2d[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    shown = (keypoints2d[:, 2] > 0) & (np.abs(points) < 16 * CROP_SIZE).all(1)  # OpenCV overflows far outside
    places = [tuple(int(value) for value in point) for point in np.where(shown[:, None], points, 0).round()]
    for width, shadow in ((3, True), (1, False)):
        for one, other in BONES:
            if shown[one] and shown[other]:
                colour = SHADOW if shadow else COLOURS[LEFT[one] and LEFT[other]]
                cv2.line(crop, places[one], places[other], colour, width, cv2.LINE_AA)
        for joint in np.flatnonzero(shown):
            colour = SHADOW if shadow else COLOURS[LEFT[joint]]
            cv2.circle(crop, places[joint], width + 1, colour, -1, cv2.LINE_AA)


def _clip(row: dict[str, Any]) -> Clip:
    """A clip of one frame, with what a sheet shows."""
    return Clip(
        track_id=row["track_id"],
        fps=row["fps"],
        crop_scale=row["crop_scale"],
        gender=row["gender"],
        frame_index=np.array([row["frame_index"]]),
        image=[row["image"]],
        bbox=np.array([row["bbox"]]),
        keypoints2d=np.array([row["keypoints2d"]]),
        valid=np.zeros(1, bool),
        **without_3d(1),
        **without_smpl(1),
    )


def _write(picture: NDArray[np.uint8], text: str, bottom: int) -> None:
    letters = text.encode("ascii", "replace").decode()  # OpenCV's font has ASCII letters only
    write(picture, letters, (4, bottom), colour=WHITE, scale=0.36)
