"""InstaVariety's TFRecords in (Kanazawa et al. 2019), clips out: one for each record, which also holds the pictures.

train/*.tfrecord and test/*.tfrecord. A picture is called "train/x.tfrecord#record/frame", both counted from 0.
"""

import mmap
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError, raise_if_passing
from glot.human.crop import CROP_SIZE
from glot.human.joints import SPIN49
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit, without_3d, without_smpl
from pipelines.decoders.dataset_facts import INSTA25, STORED_CROP_SCALE
from pipelines.decoders.source_entries import NOTHING, Before, check_root, file_source
from pipelines.decoders.tfrecord import Malformed, Span, bytes_spans, entries, example, floats, integers, read_records

if TYPE_CHECKING:
    from glot.human.body import Body

SPLITS = ("train", "test")
FPS = 30.0  # nominal: the rates of the videos are not recorded
MARK = ".tfrecord#"  # the names of InstaVariety's pictures contain this text
IN_SPIN49 = [SPIN49.index(name) for name in INSTA25]
STORED_BOX = (CROP_SIZE / 2, CROP_SIZE / 2, CROP_SIZE, CROP_SIZE)  # with STORED_CROP_SCALE: the whole stored crop
COUNTS = (
    "records", "person_frames", "rows", "rows_without_picture", "joints_not_finite", "pictures_of_other_size",
)  # fmt: skip


def find_units(root: Path, split: str, before: Before = NOTHING) -> list[Unit]:
    """The files of a split, sorted by name. No pictures are read. Damage is reported by ``decode``, not here."""
    check_root(root)
    folder = root / split
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; --root must hold InstaVariety's train/ and test/")
    files = sorted(folder.glob("*.tfrecord"))
    if not files:
        raise InputError(f"{folder}: no .tfrecord files in it; unpack InstaVariety there")
    return [_unit(root, file, before) for file in files]


def decode(root: Path, unit: Unit, body: "Body", preprocessing: str) -> Decoded:
    """A clip for each whole record; damaged records are in ``skipped``.

    keypoints2d: px of the stored 224-pixel crop, (v + 1) / 2 * 224. Of the 49 joints, the source has the OpenPose
    joints and a head top that is never visible. The source stores an unseen joint as 0, the middle of the picture. Here
    such a joint is at (0, 0), and with "reference" at (112, 112).
    bbox and crop_scale: the whole stored crop, which extraction uses unchanged.
    There is no 3D and no SMPL: the poses, shapes and 3D joints in the records are placeholders.
    """
    clips, skipped = [], []
    counts = dict.fromkeys(COUNTS, 0)
    try:
        for entry in read_records(root / unit.annotation):
            counts["records"] += 1
            frames, fault = 0, entry.fault
            if not fault:
                try:
                    frames = _frames(entry.payload)
                    clip, record_counts = _clip(entry.payload, frames, entry.number, unit, preprocessing)
                    clips.append(clip)
                    for name, count in record_counts.items():
                        counts[name] += count
                except Malformed as error:
                    fault = str(error)
            if fault:
                what = f"{unit.annotation}#{entry.number}" + (" and what follows it" if entry.last else "")
                skipped.append({"what": what, "reason": fault, "frames": frames})
    except OSError as error:
        raise_if_passing(error, unit.annotation)
        raise InputError(f"{unit.annotation}: {error.strerror or error}") from None
    counts["records_skipped"] = len(skipped)
    # Frames of damaged records are counted where the record still says how many it has.
    counts["frames_lost"] = max(unit.frames - counts["person_frames"], 0)
    if not counts["records"]:
        raise InputError(f"{unit.annotation}: an empty file, no records in it; fetch it again")
    return Decoded(clips, counts, skipped)


def read_record_picture(root: Path, name: str) -> bytes:
    """The content of the JPEG called ``name``, "train/x.tfrecord#record/frame". InputError where there is none."""
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
        raise_if_passing(error, path)
        raise InputError(error.strerror or type(error).__name__) from None
    except (ValueError, IndexError, KeyError):
        raise InputError("no such picture in the records") from None


def _unit(root: Path, file: Path, before: Before) -> Unit:
    name = file.relative_to(root).as_posix()
    source = file_source(root, name)
    size = source["bytes"]
    frames = 0
    if size and not before.is_same(source):
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            data.madvise(mmap.MADV_RANDOM)
            for entry in entries(handle, size):
                try:
                    frames += 0 if entry.fault else _frames(data, Span(entry.offset, entry.offset + entry.size))
                except Malformed:
                    continue
    return Unit(file.stem, name, name, frames, (source,))


def _frames(data: Any, span: Span | None = None) -> int:
    """How many frames a record has, by its own account (meta/N)."""
    features = example(data, span)
    if "meta/N" not in features:
        raise Malformed("no meta/N in it, so it is not a track of InstaVariety")
    count = integers(data, features["meta/N"])
    if count.shape != (1,) or not 0 < count[0] < 1_000_000:
        raise Malformed(f"meta/N is {count[:3].tolist()}, not a number of frames")
    return int(count[0])


def _values(data: bytes, features: dict[str, Span], name: str, shape: tuple[int, ...], *, kind: type) -> NDArray[Any]:
    """(N, ...) of the feature ``name``, which is a list of floats or of integers; ``shape`` is (N, ...)."""
    if name not in features:
        raise Malformed(f"no {name} in it")
    found = (integers if kind is int else floats)(data, features[name])
    if found.size != int(np.prod(shape)):
        raise Malformed(f"{name} holds {found.size} numbers, {shape[0]} frames need {int(np.prod(shape))}")
    return found.reshape(shape)


def _points(data: bytes, features: dict[str, Span], frames: int) -> NDArray[np.float64]:
    """(N, 25, 3) of a record: x, y px of the stored crop, and whether the joint is seen, as the record says."""
    xys = _values(data, features, "image/xys", (frames, 2, 14), kind=float)  # all x of a frame, then all y
    visible = _values(data, features, "image/visibilities", (frames, 1, 14), kind=int)
    face = _values(data, features, "image/face_pts", (frames, 3, 5), kind=float)
    toes = _values(data, features, "image/toe_pts", (frames, 3, 6), kind=float)
    points = np.concatenate([np.concatenate([xys, visible], 1), face, toes], 2, dtype=np.float64)
    points = points.transpose(0, 2, 1)
    if "image/phis" in features:  # in a record without them, the points are pixels already
        points[..., :2] = (points[..., :2] + 1) / 2 * CROP_SIZE
    return points


def _clip(data: bytes, frames: int, record: int, unit: Unit, preprocessing: str) -> tuple[Clip, dict[str, int]]:
    """The clip of a record of ``frames`` frames, and its counts; Malformed where it is not such a record."""
    features = example(data)
    points = _points(data, features, frames)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=2))
    seen = finite & (points[..., 2] > 0)
    points[..., 2] = seen
    points[~finite if preprocessing == "reference" else ~seen] = 0
    if "image/encoded" not in features:
        raise Malformed("no image/encoded in it")
    rows = min(frames, len(bytes_spans(data, features["image/encoded"])))
    if not rows:
        raise Malformed("no pictures in it")
    keypoints2d = np.zeros((rows, len(SPIN49), 3))
    keypoints2d[:, IN_SPIN49] = points[:rows]
    other_size = 0
    if "image/heightwidths" in features:
        sizes = _values(data, features, "image/heightwidths", (frames, 2), kind=int)
        other_size = int(np.count_nonzero((sizes[:rows] != CROP_SIZE).any(axis=1)))
    clip = Clip(
        track_id=f"{Path(unit.annotation).name}-{record}",
        fps=FPS,
        crop_scale=STORED_CROP_SCALE,
        gender="neutral",
        frame_index=np.arange(rows),
        image=[f"{unit.annotation}#{record}/{frame}" for frame in range(rows)],
        bbox=np.tile(STORED_BOX, (rows, 1)),
        keypoints2d=keypoints2d,
        valid=np.ones(rows, bool),
        **without_3d(rows),
        **without_smpl(rows),
    )
    return clip, {
        "person_frames": frames,
        "rows": rows,
        "rows_without_picture": frames - rows,
        "joints_not_finite": int((~finite[:rows]).sum()),
        "pictures_of_other_size": other_size,
    }


@lru_cache(maxsize=4)
def _pictures(path: Path, size: int, changed: int) -> dict[int, list[Span]]:
    """{record: where its pictures lie in the file}. A file that was replaced has another ``size`` or ``changed``."""
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
    crop_scale=STORED_CROP_SCALE,
    is_cropped=True,
    reference="joints nobody saw are kept where the records put them, (112, 112)",
)
