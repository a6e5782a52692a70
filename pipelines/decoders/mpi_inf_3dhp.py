"""MPI-INF-3DHP in (Mehta et al. 2017), clips out: one for each segment of frames that show the whole person.

Its folders are described in mpi_inf_3dhp_videos.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import SPIN49
from pipelines.decoders.box_variants import square_boxes
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit, without_smpl
from pipelines.decoders.dataset_facts import WINDOW
from pipelines.decoders.mpi_inf_3dhp_labels import Labels, read_test, read_train
from pipelines.decoders.mpi_inf_3dhp_videos import (
    CAMERAS,
    TEST_FOLDER,
    Source,
    find_pictures,
    source_of,
    sources,
    unit_of,
)
from pipelines.decoders.source_entries import NOTHING, Before, check_root

if TYPE_CHECKING:
    from glot.human.body import Body

SPLITS = ("train", "test")
ENLARGE = 1.1
MID_HIP, R_HIP, L_HIP = (SPIN49.index(name) for name in ("hip", "rhip", "lhip"))
FARTHEST = 1e6  # m; larger coordinates and NaN are not positions


class Frames(NamedTuple):
    """The n frames of a video that have a picture and a label, in time order."""

    image: list[str]
    number: NDArray[np.int64]  # (n,) frames of the video, 0-based
    order: NDArray[np.int64]  # (n,) rises by 1 where no frame is missing in between
    labels: Labels  # R = n
    usable: NDArray[np.bool_]  # (n,) labels are finite and in the picture, and there is a box
    counts: dict[str, int]


def find_units(root: Path, split: str, before: Before = NOTHING) -> list[Unit]:
    """The videos of a split. One without pictures or annotations is listed too; decoding it reports that."""
    check_root(root)
    found = sources(root, split)
    if not found:
        wanted = f"S1 to S8 with Seq1 and Seq2 (with {len(CAMERAS)} videos each)"
        wanted = wanted if split == "train" else f"{TEST_FOLDER}/TS1 to TS6"
        raise InputError(f"{root}: nothing of MPI-INF-3DHP's {split} split in it; --root must hold {wanted}")
    return [unit_of(root, source, before) for source in found]


def decode(root: Path, unit: Unit, body: "Body", preprocessing: str) -> Decoded:
    """The clips of the one person in a video. A clip ends wherever a frame is left out, so that no window has a gap.

    Rows: frames with a picture and a label in which all 17 joints are inside the picture.
    keypoints2d: 17 joints, confidence 1.
    bbox: around these joints, separately for each frame.
    joints3d: in training, annot3 of the camera. In the test split, univ_annot3: the skeleton scaled to one height,
    against which published errors are measured. Metres, relative to the mean of the hips; unknown joints are 0 and not
    valid. There is no SMPL.
    valid: the test split's valid_frame. Frames where it is false are kept, because windows need them.

    Four things differ from the code of VIBE and the code derived from it:
    - Pictures and labels are matched by number, not by position in a sorted list, so a missing picture shifts nothing.
    - Of a 50 fps video every second frame is kept, as for Human3.6M, so that all windows have the same length in time.
    - Segments are numbered within their own video.
    - Joints that the source does not have are 0.
    "reference" does not make these four corrections: its unknown joints are at minus the pelvis, and its pelvis is the
    joint "hip".
    """
    source = source_of(root, unit.name)
    corrected = preprocessing != "reference"
    frames = _frames(root, source, corrected=corrected)
    segments = _segments(frames)
    track, first = source.track, 0
    if not corrected and not frames.usable[:1].all():
        track, first = _reference_name(root, source)
    clips = [
        _clip(frames, segment, f"{track}_seg{i}", source, corrected=corrected)
        for i, segment in enumerate(segments, first)
    ]
    counts = {
        "rows": int(frames.usable.sum()),
        "rows_without_3d": sum(int((~clip.has_3d).sum()) for clip in clips),
        "segments": len(segments),
        f"segments_under_{WINDOW}_frames": sum(len(segment) < WINDOW for segment in segments),
    }
    return Decoded(clips, {**frames.counts, **counts})


def _frames(root: Path, source: Source, *, corrected: bool) -> Frames:
    """The pictures of a video with their labels. Pictures without labels and labels without pictures are counted."""
    pictures = find_pictures(root, source)
    number = pictures.numbers
    labels, rows = _read(root, source, most=max(number, default=-1) + 1)
    row = number if corrected else np.arange(len(number))  # the label's row for each picture
    both = row < rows
    counts = {
        "annotation_rows": rows,
        "rows_without_picture": rows - int(both.sum()),
        "pictures_without_row": int((~both).sum()),
    }
    kept = both.copy()
    step = 2 if corrected and source.fps == 50.0 else 1
    if step == 2:
        kept &= number % 2 == 0
        counts["rows_left_out_for_25_fps"] = int((both & ~kept).sum())
    labels = labels.take(row[kept])
    finite = np.isfinite(labels.keypoints2d).all((1, 2))
    counts["rows_not_finite"] = int((~finite).sum())
    with np.errstate(invalid="ignore"):
        inside = ((labels.keypoints2d >= 0) & (labels.keypoints2d < pictures.size)).all((1, 2))
        boxed = _boxes(labels)[:, 2] > 0
    counts["rows_outside_picture"] = int((finite & ~inside).sum())
    counts["rows_without_box"] = int((finite & inside & ~boxed).sum())
    order = number[kept] // step if corrected else np.arange(len(number))[kept]
    image = [name for name, keep in zip(pictures.names, kept, strict=True) if keep]
    return Frames(image, number[kept], order, labels, finite & inside & boxed, counts)


def _segments(frames: Frames) -> list[NDArray[np.intp]]:
    """Rows of ``frames`` that are usable and follow each other: an array for each segment."""
    rows = np.flatnonzero(frames.usable)
    cuts = np.flatnonzero(np.diff(frames.order[rows]) != 1) + 1
    return [segment for segment in np.split(rows, cuts) if len(segment)]


def _reference_name(root: Path, source: Source) -> tuple[str, int]:
    """The track and the number of the first segment that VIBE gives a video whose first frame is left out.

    VIBE continues the last name that it stored, which belongs to an earlier video. Where there is none, it stops with
    an IndexError; here the video keeps its own name.
    """
    all_sources = sources(root, "test" if source.camera < 0 else "train")
    track, segments = source.track, 0
    for earlier in reversed(all_sources[: all_sources.index(source)]):
        try:
            frames = _frames(root, earlier, corrected=False)
        except InputError:
            continue
        if found := _segments(frames):
            track, segments = earlier.track, segments + len(found)
            if frames.usable[0]:
                break
    return track, segments


def _clip(frames: Frames, segment: NDArray[np.intp], track_id: str, source: Source, *, corrected: bool) -> Clip:
    labels = frames.labels.take(segment)
    known = np.broadcast_to(labels.known, (len(segment), len(SPIN49)))
    has_3d: NDArray[np.bool_] = np.asarray(
        (np.abs(labels.joints3d) < FARTHEST).all((1, 2)) & labels.joints3d.any((1, 2))
    )
    pelvis = labels.joints3d[:, [R_HIP, L_HIP] if corrected else [MID_HIP]].mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        joints3d = labels.joints3d - pelvis
    joints3d[~(known & has_3d[:, None]) if corrected else ~has_3d] = 0
    return Clip(
        track_id=track_id,
        fps=source.fps,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=frames.number[segment],
        image=[frames.image[row] for row in segment],
        bbox=_boxes(labels),
        keypoints2d=np.concatenate([labels.keypoints2d, _seen(labels)[..., None]], -1),
        joints3d=joints3d,
        joints3d_valid=known & has_3d[:, None],
        has_3d=has_3d,
        valid=labels.valid,
        **without_smpl(len(segment)),
    )


def _seen(labels: Labels) -> NDArray[np.bool_]:
    """(R, 49): joints that the source has and that are not at (0, 0), which stands for a missing joint."""
    return labels.known & labels.keypoints2d.any(-1)


def _boxes(labels: Labels) -> NDArray[np.float64]:
    """Squares (R, 4) around the seen joints; zeros where there are none."""
    return square_boxes(labels.keypoints2d, _seen(labels), enlarge=ENLARGE)


def _read(root: Path, source: Source, *, most: int) -> tuple[Labels, int]:
    """The first ``most`` labels of a video, and how many there are."""
    path, what = root / source.annotation.partition("#")[0], source.annotation
    if not path.is_file():
        raise InputError(f"{what}: there is no such file, but its folder exists")
    if source.camera < 0:
        return read_test(path, most=most, what=what)
    return read_train(path, camera=source.camera, most=most, what=what)


MPI_INF_3DHP = Decoder(
    splits=SPLITS,
    find=find_units,
    decode=decode,
    box_rule=f"{ENLARGE} x larger extent of the 17 joints, frame by frame",
    crop_scale=DEFAULT_CROP_SCALE,
    reference="all frames of 50 fps videos; labels paired by position; segments counted on from the last stored name; "
    "joints3d relative to the joint hip, unknown ones at minus the hip; float16",
    cuttable=True,
)
