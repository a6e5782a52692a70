"""MPI-INF-3DHP in (Mehta et al. 2017), clips out: one for each run of frames with the whole person in the picture.

Training: S1/Seq1/annot.mat (MATLAB v5) with pictures S1/Seq1/video_0/000001.jpg or S1/Seq1/imageSequence/video_0.avi.
Test: mpi_inf_3dhp_test_set/TS1/annot_data.mat (MATLAB v7.3, which is HDF5) with imageSequence/img_000001.jpg.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import SPIN49
from glot.people.video import Unreadable, Video
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit
from pipelines.decoders.frames import read_picture
from pipelines.decoders.mpi_inf_3dhp_labels import Labels, read_test, read_train

SPLITS = ("train", "test")
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # of 14; the field leaves out the others, which look from above
SUBJECTS, SEQUENCES = range(1, 9), (1, 2)
FAST = {(1, 2), (3, 1), (3, 2), (5, 1), (5, 2)}  # (subject, sequence) filmed at 50 fps, the others at 25
TEST_FOLDER = "mpi_inf_3dhp_test_set"
ENLARGE = 1.1
WINDOW = 16  # frames; shorter runs give no window
MID_HIP, R_HIP, L_HIP = (SPIN49.index(name) for name in ("hip", "rhip", "lhip"))
FARTHEST = 1e6  # m; what is beyond it, or NaN, is no position
LONGEST = 1_000_000  # frames; a video's header may say anything
PICTURES = (".jpg", ".jpeg", ".png")


class Source(NamedTuple):
    """One video of the dataset."""

    name: str  # of its unit
    track: str  # what its clips are called, before _seg0; the published names
    folder: str
    annotation: str  # the cameras of a sequence share a file: S1/Seq1/annot.mat#0
    images: str  # a folder, or a video
    camera: int  # -1 in the test split
    fps: float


class Frames(NamedTuple):
    """The n frames of a video that have a picture and a label, in time order."""

    image: list[str]
    number: NDArray[np.int64]  # (n,) 0-based, of the source video
    order: NDArray[np.int64]  # (n,) rises by 1 where nothing is missing in between
    labels: Labels  # R = n
    usable: NDArray[np.bool_]  # (n,) finite, in the picture, with a box
    counts: dict[str, int]


def find_units(root: Path, split: str) -> list[Unit]:
    """The videos of a split; one without pictures or annotations is listed too, decoding it says so."""
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder")
    sources = _sources(root, split)
    if not sources:
        wanted = f"S1 to S8 with Seq1 and Seq2 (with {len(CAMERAS)} videos each)"
        wanted = wanted if split == "train" else f"{TEST_FOLDER}/TS1 to TS6"
        raise InputError(f"{root}: nothing of MPI-INF-3DHP's {split} split in it; --root must hold {wanted}")
    return [_unit(root, source) for source in sources]


def decode(root: Path, unit: Unit, body: Body, preprocessing: str) -> Decoded:
    """Clips of the one person of a video, cut wherever a frame is left out, so that no window spans a gap.

    Rows: frames with a picture and a label, in which all 17 joints lie inside the picture.
    keypoints2d: 17 joints, confidence 1. bbox: around them, without smoothing. There is no SMPL.
    joints3d: annot3 of the camera in training; in the test split univ_annot3, the skeleton scaled to one height, which
    is what the field scores against. Metres, relative to the mean of the hips, 0 and not valid where there is no joint.
    valid: the test split's valid_frame; frames without it are kept, because windows need them.

    Corrected against the code of VIBE and its heirs: pictures meet their label by number, not by position in a sorted
    list, so a lost picture moves nothing; of a 50 fps video every second frame is kept, as it is done for Human3.6M,
    so that a window is equally long everywhere; segments are counted in their own video; missing joints are 0.
    "reference" brings all four back, the last one as -pelvis, with the joint "hip" as pelvis.
    """
    source = _source(root, unit.name)
    corrected = preprocessing != "reference"
    frames = _frames(root, source, corrected=corrected)
    runs = _runs(frames)
    track, first = source.track, 0
    if not corrected and not frames.usable[:1].all():
        track, first = _reference_name(root, source)
    clips = [_clip(frames, run, f"{track}_seg{i}", source, corrected=corrected) for i, run in enumerate(runs, first)]
    short = sum(len(run) < WINDOW for run in runs)
    counts = {
        "rows": int(frames.usable.sum()),
        "rows_without_3d": sum(int((~clip.has_3d).sum()) for clip in clips),
        "segments": len(runs),
        f"segments_under_{WINDOW}_frames": short,
    }
    return Decoded(clips, {**frames.counts, **counts})


def _sources(root: Path, split: str) -> list[Source]:
    """In the order of the published sets."""
    names = []
    if split == "train":
        for folder in root.glob("S*/Seq*"):
            if (found := re.fullmatch(r"S(\d+)/Seq(\d+)", folder.relative_to(root).as_posix())) and folder.is_dir():
                names += [(int(found[1]), int(found[2]), camera) for camera in CAMERAS]
        return [_source(root, "S{}_Seq{}_video_{}".format(*name)) for name in sorted(names)]
    folders = [folder.name for folder in _test_folder(root).glob("TS*") if folder.is_dir()]
    subjects = sorted(int(name[2:]) for name in folders if re.fullmatch(r"TS\d+", name))
    return [_source(root, f"TS{subject}") for subject in subjects]


def training_fps(subject: int, sequence: int) -> float:
    """Frames per second of the training videos of a subject's sequence."""
    return 50.0 if (subject, sequence) in FAST else 25.0


def _source(root: Path, name: str) -> Source:
    if name.startswith("TS"):
        folder = (_test_folder(root) / name).relative_to(root).as_posix()
        # The rate is not stated; the lengths are those of the 25 fps videos of training.
        annotation, images = f"{folder}/annot_data.mat", f"{folder}/imageSequence"
        return Source(name, f"subj{name[2:]}", folder, annotation, images, -1, 25.0)
    subject, sequence, camera = (int(number) for number in re.findall(r"\d+", name))
    folder, rate = f"S{subject}/Seq{sequence}", training_fps(subject, sequence)
    track = f"subj{subject}_seq{sequence}_vid{camera}"
    return Source(name, track, folder, f"{folder}/annot.mat#{camera}", _images(root, folder, camera), camera, rate)


def _test_folder(root: Path) -> Path:
    return root / TEST_FOLDER if (root / TEST_FOLDER).is_dir() else root


def _images(root: Path, folder: str, camera: int) -> str:
    """Pictures if there are some, else the video, else where the pictures should be."""
    usual = f"{folder}/video_{camera}"
    for path in (usual, f"{folder}/imageFrames/video_{camera}", f"{folder}/imageSequence/video_{camera}"):
        if (root / path).is_dir() and any(name.suffix.lower() in PICTURES for name in (root / path).iterdir()):
            return path
    videos = (f"{folder}/imageSequence/video_{camera}.avi", f"{folder}/video_{camera}.avi")
    return next((path for path in videos if (root / path).is_file()), usual)


def _unit(root: Path, source: Source) -> Unit:
    file, images = root / source.annotation.partition("#")[0], root / source.images
    annotation = {"path": source.annotation, "bytes": file.stat().st_size if file.is_file() else 0}
    if images.is_file():
        try:
            video = Video(images)
            frames = video.frames
            video.close()
        except Unreadable:
            frames = 0
        pictures = {"path": source.images, "bytes": images.stat().st_size}
    else:
        sizes = []
        if images.is_dir():
            with os.scandir(images) as entries:
                sizes = [entry.stat().st_size for entry in entries if Path(entry.name).suffix.lower() in PICTURES]
        frames = len(sizes)
        pictures = {"path": source.images, "bytes": sum(sizes), "files": frames}
    return Unit(source.name, source.annotation, source.images, frames, (annotation, pictures))


def _frames(root: Path, source: Source, *, corrected: bool) -> Frames:
    """Pictures and labels of a video brought together; what has no partner is counted."""
    image, number, size = _pictures(root, source)
    labels, rows = _read(root, source, most=max(number, default=-1) + 1)
    row = number if corrected else np.arange(len(number))
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
    labels = Labels(labels.keypoints2d[row[kept]], labels.joints3d[row[kept]], labels.valid[row[kept]], labels.known)
    usable = np.isfinite(labels.keypoints2d).all((1, 2))
    counts["rows_not_finite"] = int((~usable).sum())
    with np.errstate(invalid="ignore"):
        inside = ((labels.keypoints2d >= 0) & (labels.keypoints2d < size)).all((1, 2))
        boxed = _boxes(labels)[:, 2] > 0
    counts["rows_outside_picture"] = int((usable & ~inside).sum())
    counts["rows_without_box"] = int((usable & inside & ~boxed).sum())
    order = number[kept] // step if corrected else np.arange(len(number))[kept]
    image = [name for name, yes in zip(image, kept, strict=True) if yes]
    return Frames(image, number[kept], order, labels, usable & inside & boxed, counts)


def _runs(frames: Frames) -> list[NDArray[np.intp]]:
    """Rows of ``frames`` that are usable and follow each other."""
    rows = np.flatnonzero(frames.usable)
    cuts = np.flatnonzero(np.diff(frames.order[rows]) != 1) + 1
    return [run for run in np.split(rows, cuts) if len(run)]


def _reference_name(root: Path, source: Source) -> tuple[str, int]:
    """Track and first segment of a video whose first frame is left out: VIBE goes on from the last name it stored,
    which is of an earlier video (and stops with an IndexError where there is none)."""
    sources = _sources(root, "test" if source.camera < 0 else "train")
    track, segments = source.track, 0
    for earlier in reversed(sources[: sources.index(source)]):
        try:
            frames = _frames(root, earlier, corrected=False)
        except InputError:
            continue
        if runs := _runs(frames):
            track, segments = earlier.track, segments + len(runs)
            if frames.usable[0]:
                break
    return track, segments


def _clip(frames: Frames, run: NDArray[np.intp], track_id: str, source: Source, *, corrected: bool) -> Clip:
    count, labels = len(run), frames.labels
    known = np.broadcast_to(labels.known, (count, len(SPIN49)))
    taken = Labels(labels.keypoints2d[run], labels.joints3d[run], labels.valid[run], labels.known)
    has_3d: NDArray[np.bool_] = np.asarray((np.abs(taken.joints3d) < FARTHEST).all((1, 2)) & taken.joints3d.any((1, 2)))
    pelvis = taken.joints3d[:, [R_HIP, L_HIP] if corrected else [MID_HIP]].mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        joints3d = taken.joints3d - pelvis
    joints3d[~(known & has_3d[:, None]) if corrected else ~has_3d] = 0
    seen = known & taken.keypoints2d.any(-1)
    return Clip(
        track_id=track_id,
        fps=source.fps,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=frames.number[run],
        image=[frames.image[row] for row in run],
        bbox=_boxes(taken),
        keypoints2d=np.concatenate([taken.keypoints2d, seen[..., None]], -1),
        joints3d=joints3d,
        joints3d_valid=known & has_3d[:, None],
        pose=np.zeros((count, 24, 3)),
        betas=np.zeros((count, 10)),
        has_3d=has_3d,
        has_smpl=np.zeros(count, bool),
        valid=taken.valid,
    )


def _boxes(labels: Labels) -> NDArray[np.float64]:
    """(R, 4) around the joints that are not at (0, 0), side 1.1 times the larger extent; side 0 where there is none."""
    seen = (labels.known & labels.keypoints2d.any(-1))[..., None]
    low = np.where(seen, labels.keypoints2d, np.inf).min(1)
    high = np.where(seen, labels.keypoints2d, -np.inf).max(1)
    some = seen.any(1)
    low, high = np.where(some, low, 0.0), np.where(some, high, 0.0)
    side = ENLARGE * (high - low).max(1, keepdims=True)
    return np.concatenate([(low + high) / 2, side, side], 1)


def _pictures(root: Path, source: Source) -> tuple[list[str], NDArray[np.int64], tuple[int, int]]:
    """Image names in time order, their 0-based numbers in the video, and (width, height) of all of them."""
    path = root / source.images
    if path.is_file():
        try:
            video = Video(path)
        except Unreadable as error:
            raise InputError(f"{source.images}: {error}") from None
        video.close()
        if not 0 < video.frames <= LONGEST:
            raise InputError(f"{source.images}: says it holds {video.frames} pictures; unpack it into a folder")
        names = [f"{source.images}#{number}" for number in range(video.frames)]
        return names, np.arange(video.frames), _size_as_labelled(root, source, (video.width, video.height))
    if not path.is_dir():
        raise InputError(f"{source.images}: there is no such folder, and no video, but {source.annotation} needs it")
    found: dict[int, str] = {}
    for name in sorted(os.listdir(path)):
        stem, ending = os.path.splitext(name)
        digits = re.search(r"\d+$", stem)
        if ending.lower() in PICTURES and digits:
            if int(digits[0]) in found:
                raise InputError(f"{source.images}: {found[int(digits[0])]} and {name} have the same number")
            found[int(digits[0])] = name
    if not found:
        raise InputError(f"{source.images}: no pictures in it")
    first = min(1, *found)  # ffmpeg's numbers begin with 1
    numbers = np.array(sorted(found))
    names = [f"{source.images}/{found[number]}" for number in numbers.tolist()]
    return names, numbers - first, _size_as_labelled(root, source, _picture_size(root, names, source))


def _picture_size(root: Path, names: Sequence[str], source: Source) -> tuple[int, int]:
    for name in names:
        try:
            height, width = read_picture(root / name).shape[:2]
        except Unreadable:
            continue
        return width, height
    raise InputError(f"{source.images}: none of its {len(names)} pictures can be read")


def _size_as_labelled(root: Path, source: Source, size: tuple[int, int]) -> tuple[int, int]:
    """Labels are pixels of the camera: pictures stored smaller, as some tools do, would all be cropped wrongly."""
    path = root / source.folder / "camera.calibration"
    if source.camera >= 0 and path.is_file():
        text = path.read_text(errors="replace")
        found = re.search(rf"^\s*name\s+{source.camera}\s*$.*?^\s*size\s+(\d+)\s+(\d+)", text, re.M | re.S)
        if found and (int(found[1]), int(found[2])) != size:
            raise InputError(f"{source.images}: {size[0]}x{size[1]} px, but labelled for {found[1]}x{found[2]}")
    return size


def _read(root: Path, source: Source, *, most: int) -> tuple[Labels, int]:
    path, what = root / source.annotation.partition("#")[0], source.annotation
    if not path.is_file():
        raise InputError(f"{what}: there is no such file, but there is its folder")
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
)
