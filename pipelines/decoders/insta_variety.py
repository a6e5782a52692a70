"""InstaVariety's TFRecords in (Kanazawa et al. 2019), clips out: one for each record, whose pictures lie inside it.

train/*.tfrecord and test/*.tfrecord; a picture is called "train/x.tfrecord#record/frame", both counted from 0.
"""

import mmap
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.body import Body
from glot.human.crop import CROP_SIZE
from glot.human.joints import SPIN49, match
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit
from pipelines.decoders.tfrecord import Malformed, Span, bytes_spans, entries, example, floats, integers, read_records

SPLITS = ("train", "test")
FPS = 30.0  # nominal: the rate of the videos is not recorded
MARK = ".tfrecord#"  # in names of pictures
# The order of the 14 joints of image/xys, the 5 of image/face_pts and the 6 of image/toe_pts.
INSTA25 = (
    "OP RHeel", "OP RKnee", "OP RHip", "OP LHip", "OP LKnee", "OP LHeel", "OP RWrist", "OP RElbow", "OP RShoulder",
    "OP LShoulder", "OP LElbow", "OP LWrist", "OP Neck", "headtop",
    "OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar",
    "OP LBigToe", "OP RBigToe", "OP LSmallToe", "OP RSmallToe", "OP LAnkle", "OP RAnkle",
)  # fmt: skip
IN_SPIN49 = [target for _, target in match(INSTA25, SPIN49)]  # all 25 have a place
STORED_BOX = (CROP_SIZE / 2, CROP_SIZE / 2, CROP_SIZE, CROP_SIZE)  # with scale 1: the stored crop as it is
STORED_SCALE = 1.0


def find_units(root: Path, split: str) -> list[Unit]:
    """The files of a split, sorted by name; heads of records are read, no picture. Damage is left to ``decode``."""
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder")
    folder = root / split
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; --root must hold InstaVariety's train/ and test/")
    files = sorted(folder.glob("*.tfrecord"))
    if not files:
        raise InputError(f"{folder}: no .tfrecord files in it; unpack InstaVariety there")
    return [_unit(root, file) for file in files]


def decode(root: Path, unit: Unit, body: Body, preprocessing: str) -> Decoded:
    """A clip of every whole record; damaged ones are in ``skipped``.

    keypoints2d: px of the stored 224-pixel crop, (v + 1) / 2 * 224; OpenPose's half of the 49 and a head top that is
    never visible. An unseen joint is stored as 0, the middle of the picture: its place is (0, 0) here, and (112, 112)
    with "reference". bbox and crop_scale: the stored crop, which extraction takes as it is. No 3D: what the records
    hold of poses, shapes and 3D joints are stand-ins.
    """
    clips, skipped = [], []
    counts = {"records": 0, "person_frames": 0, "rows": 0, "rows_without_picture": 0, "joints_not_finite": 0}
    counts["pictures_of_other_size"] = 0
    path = root / unit.annotation
    try:
        for entry in read_records(path):
            counts["records"] += 1
            frames, fault = 0, entry.fault
            if not fault:
                try:
                    frames = _frames(entry.payload)
                    clip, of_record = _clip(entry.payload, frames, entry.number, unit, preprocessing)
                    clips.append(clip)
                    for name, count in of_record.items():
                        counts[name] += count
                except Malformed as error:
                    fault = str(error)
            if fault:
                what = f"{unit.annotation}#{entry.number}" + (" and what follows it" if entry.last else "")
                skipped.append({"what": what, "reason": fault, "frames": frames})
    except OSError as error:
        raise InputError(f"{unit.annotation}: {error.strerror or error}") from None
    counts["records_skipped"] = len(skipped)
    counts["frames_lost"] = max(unit.frames - counts["person_frames"], 0)  # as far as damaged records still tell
    if not counts["records"]:
        raise InputError(f"{unit.annotation}: an empty file, no records in it; fetch it again")
    return Decoded(clips, counts, skipped)


def read_record_picture(root: Path, name: str) -> bytes:
    """The JPEG called ``name``, "train/x.tfrecord#record/frame". InputError where there is none."""
    file, _, place = name.partition("#")
    path = root / file
    try:
        record, frame = (int(number) for number in place.split("/"))
        stat = path.stat()
        span = _pictures(path, stat.st_size, stat.st_mtime_ns)[record][frame]
        with path.open("rb") as handle:
            handle.seek(span.start)
            return handle.read(span.stop - span.start)
    except OSError as error:
        raise InputError(error.strerror or type(error).__name__) from None
    except (ValueError, IndexError, KeyError):
        raise InputError("no such picture in the records") from None


def _unit(root: Path, file: Path) -> Unit:
    name = file.relative_to(root).as_posix()
    size = file.stat().st_size
    frames = 0
    if size:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            data.madvise(mmap.MADV_RANDOM)
            for entry in entries(handle, size):
                try:
                    frames += 0 if entry.fault else _frames(data, Span(entry.offset, entry.offset + entry.size))
                except Malformed:
                    continue
    return Unit(file.stem, name, name, frames, ({"path": name, "bytes": size},))


def _frames(data: Any, span: Span | None = None) -> int:
    features = example(data, span)
    if "meta/N" not in features:
        raise Malformed("no meta/N in it, so not a track of InstaVariety")
    count = integers(data, features["meta/N"])
    if count.shape != (1,) or not 0 < count[0] < 1_000_000:
        raise Malformed(f"meta/N is {count[:3].tolist()}, not a number of frames")
    return int(count[0])


def _clip(data: bytes, frames: int, record: int, unit: Unit, preprocessing: str) -> tuple[Clip, dict[str, int]]:
    features = example(data)

    def values(name: str, *shape: int, whole: bool = False) -> NDArray[Any]:
        if name not in features:
            raise Malformed(f"no {name} in it")
        found = (integers if whole else floats)(data, features[name])
        if found.size != frames * int(np.prod(shape)):
            raise Malformed(f"{name} holds {found.size} numbers, {frames} frames need {frames * int(np.prod(shape))}")
        return found.reshape(frames, *shape)

    # (N, 2, 14): all x of a frame, then all y.
    body = np.concatenate([values("image/xys", 2, 14), values("image/visibilities", 1, 14, whole=True)], 1)
    points = np.concatenate([body, values("image/face_pts", 3, 5), values("image/toe_pts", 3, 6)], 2, dtype=np.float64)
    points = points.transpose(0, 2, 1)  # (N, 25, 3)
    if "image/phis" in features:  # without them, the writer leaves pixels
        points[..., :2] = (points[..., :2] + 1) / 2 * CROP_SIZE
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=2))
    seen = finite & (points[..., 2] > 0)
    points[..., 2] = seen
    points[~finite if preprocessing == "reference" else ~seen] = 0
    if "image/encoded" not in features:
        raise Malformed("no image/encoded in it")
    pictures = len(bytes_spans(data, features["image/encoded"]))
    rows = min(frames, pictures)
    if not rows:
        raise Malformed("no pictures in it")
    keypoints2d = np.zeros((rows, len(SPIN49), 3))
    keypoints2d[:, IN_SPIN49] = points[:rows]
    other = 0
    if "image/heightwidths" in features:
        sizes = values("image/heightwidths", 2, whole=True)
        other = int(np.count_nonzero((sizes[:rows] != CROP_SIZE).any(axis=1)))
    nothing, none = np.zeros((rows, len(SPIN49), 3)), np.zeros(rows, bool)
    clip = Clip(
        track_id=f"{Path(unit.annotation).name}-{record}",
        fps=FPS,
        crop_scale=STORED_SCALE,
        gender="neutral",
        frame_index=np.arange(rows),
        image=[f"{unit.annotation}#{record}/{frame}" for frame in range(rows)],
        bbox=np.tile(STORED_BOX, (rows, 1)),
        keypoints2d=keypoints2d,
        joints3d=nothing,
        joints3d_valid=np.zeros(nothing.shape[:2], bool),
        pose=np.zeros((rows, 24, 3)),
        betas=np.zeros((rows, 10)),
        has_3d=none,
        has_smpl=none,
        valid=np.ones(rows, bool),
    )
    return clip, {
        "person_frames": frames,
        "rows": rows,
        "rows_without_picture": frames - rows,
        "joints_not_finite": int((~finite[:rows]).sum()),
        "pictures_of_other_size": other,
    }


@lru_cache(maxsize=4)
def _pictures(path: Path, size: int, changed: int) -> dict[int, list[Span]]:
    """{record: where its pictures lie in the file}; ``size`` and ``changed`` are there to notice another file."""
    found: dict[int, list[Span]] = {}
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for entry in entries(handle, size):
            if entry.fault:
                continue
            try:
                features = example(data, Span(entry.offset, entry.offset + entry.size))
                found[entry.number] = bytes_spans(data, features["image/encoded"])
            except (Malformed, KeyError):
                continue
    return found


INSTA_VARIETY = Decoder(
    splits=SPLITS,
    find=find_units,
    decode=decode,
    box_rule="none: the pictures are stored as 224-pixel crops and taken as they are",
    crop_scale=STORED_SCALE,
    reference="joints nobody saw are kept where the records put them, (112, 112)",
)
