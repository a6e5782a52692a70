"""Videos of people in, clips out: each person at the boxes of a file, or one person who fills the picture.

Video files may be at any depth below the root. A picture is called "walk.mp4#12", counted from 0. No labels.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import overload
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import SPIN49
from glot.people.track_files import FrameBoxes, read_tracks, track_file
from glot.people.video import VIDEOS, Timeline, Unreadable, estimated_frames, read_timeline
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit, check_root, file_source, without_3d, without_smpl

SPLITS = ("test",)  # there are no labels to train on
LONGEST_NAME = 150  # bytes of a unit's name


class FrameNames(Sequence[str]):
    """The names of a video's pictures, "walk.mp4#0" and so on. Each name is made when it is read.

    For three hours of video, a list would hold hundreds of thousands of strings.
    """

    def __init__(self, video: str, frames: NDArray[np.integer]) -> None:
        self.video, self.frames = video, frames

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "FrameNames": ...
    def __getitem__(self, index: int | slice) -> "str | FrameNames":
        if isinstance(index, slice):
            return FrameNames(self.video, self.frames[index])
        return f"{self.video}#{self.frames[index]}"


def video_decoder(tracks: Path | None) -> Decoder:
    """The decoder of videos with the boxes in ``tracks``.

    ``tracks`` is a file for one video, a JSON file for several, or a folder with a file for each video. With None, one
    person fills the picture.
    """
    return Decoder(
        splits=SPLITS,
        find=partial(find_units, tracks=tracks),
        decode=partial(decode, tracks=tracks),
        box_rule="square around the given box, its larger side" if tracks else "the whole picture",
        crop_scale=DEFAULT_CROP_SCALE,
    )


def find_units(root: Path, split: str, *, tracks: Path | None = None) -> list[Unit]:
    """The videos, sorted by name. One that cannot be read is listed too; decoding it reports that."""
    if root.is_file():
        raise InputError(f"--root {root}: is a file; give the folder that contains it")
    check_root(root)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    if not files:
        raise InputError(f"--root {root}: no videos in it ({', '.join(VIDEOS)})")
    if tracks is not None:
        if not tracks.exists():
            raise InputError(f"--tracks {tracks}: there is no such file or folder")
        if tracks.is_file() and tracks.suffix.lower() != ".json" and len(files) > 1:
            raise InputError(f"--tracks {tracks}: is for one video, but {root} holds {len(files)}; give a folder")
    return [_unit(root, file, tracks) for file in files]


def decode(root: Path, unit: Unit, body: Body, preprocessing: str, *, tracks: Path | None = None) -> Decoded:
    """The clips of a video: for each person, the frames in which the person has a box.

    bbox: a square around the given box. Without ``tracks`` there is one clip of the whole video, whose crops are as
    wide as the larger side of the picture.

    In a video without a constant frame rate (phones, recorded calls), frame_index still counts pictures and fps is the
    mean rate. The count ``uneven_rate`` is then 1.
    """
    try:
        timeline = read_timeline(root / unit.images)
    except Unreadable as error:
        raise InputError(f"{unit.images}: {error}") from None
    counts = {"frames": timeline.frames, "uneven_rate": int(not timeline.even), "rows": 0}
    if tracks is None:
        width, height = timeline.width, timeline.height
        side = max(width, height) / DEFAULT_CROP_SCALE
        whole = np.array([[(width - side) / 2, (height - side) / 2, side, side]])
        frames = np.arange(timeline.frames)
        people = {"0": FrameBoxes(frames, np.broadcast_to(whole, (len(frames), 4)))}
    else:
        people = read_tracks(unit.images, tracks)
        counts |= {"people": len(people), "boxes_without_size": 0, "boxes_beyond_the_video": 0}
    clips = []
    for person, boxes in people.items():
        sized = boxes.with_size()
        inside = boxes.frames < timeline.frames
        if tracks is not None:
            counts["boxes_without_size"] += int((~sized).sum())
            counts["boxes_beyond_the_video"] += int((sized & ~inside).sum())
        frames, bbox = boxes.frames[sized & inside], boxes.bbox[sized & inside]
        if len(frames):
            clips.append(_clip(f"{unit.name}_{person}", unit.images, frames, bbox, timeline))
            counts["rows"] += len(frames)
    return Decoded(clips, counts)


def _clip(track: str, video: str, frames: NDArray[np.int64], box: NDArray[np.float64], timeline: Timeline) -> Clip:
    """The clip of a person; ``box`` (N, 4: left, top, width, height) px."""
    count = len(frames)
    side = box[:, 2:].max(1)
    return Clip(
        track_id=track,
        fps=timeline.fps,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=frames,
        image=FrameNames(video, frames),
        bbox=np.column_stack([box[:, :2] + box[:, 2:] / 2, side, side]),
        keypoints2d=np.broadcast_to(0.0, (count, len(SPIN49), 3)),
        valid=np.broadcast_to(True, (count,)),
        **without_3d(count),
        **without_smpl(count),
    )


def _unit(root: Path, file: Path, tracks: Path | None) -> Unit:
    video = file.relative_to(root).as_posix()
    sources = [file_source(root, video)]
    if tracks is not None and (boxes := track_file(video, tracks)):
        content = boxes.read_bytes()
        sources.append({"path": boxes.name, "bytes": len(content), "hash": hashlib.sha256(content).hexdigest()[:16]})
    name = quote(video, safe=" ")
    if len(name) > LONGEST_NAME:  # file systems allow 255 bytes
        name = f"{name[: LONGEST_NAME - 17]}-{hashlib.sha256(video.encode()).hexdigest()[:16]}"
    return Unit(name, video, video, estimated_frames(file), tuple(sources))


VIDEO = video_decoder(None)
