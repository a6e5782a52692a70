"""Videos of people in, clips out: each person where a box file says so, or one person who fills the picture.

Any video files at any depth below the root; pictures are called "walk.mp4#12", counted from 0. No labels.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import SPIN49
from glot.people.track_files import Boxes, read_tracks, track_file
from glot.people.video import VIDEOS, Timeline, Unreadable, frames_said, read_timeline
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit

SPLITS = ("test",)  # nobody trains on them
FARTHEST = 1e6  # px
LONGEST_NAME = 150  # of a unit, bytes


class FrameNames(Sequence[str]):
    """ "walk.mp4#0" and so on; three hours of them take no memory to speak of."""

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
    """The decoder of videos with the boxes in ``tracks``: a file for one video, a JSON file for several, or a folder
    with a file for each; None takes the whole picture."""
    return Decoder(
        splits=SPLITS,
        find=partial(find_units, tracks=tracks),
        decode=partial(decode, tracks=tracks),
        box_rule="square around the given box, its larger side" if tracks else "the whole picture",
        crop_scale=DEFAULT_CROP_SCALE,
    )


def find_units(root: Path, split: str, *, tracks: Path | None = None) -> list[Unit]:
    """The videos by name; one that cannot be read is listed too, decoding it says so."""
    if root.is_file():
        raise InputError(f"--root {root}: is a file; give the folder it is in")
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    if not files:
        raise InputError(f"--root {root}: no videos in it ({', '.join(VIDEOS)})")
    if tracks is not None:
        if not tracks.exists():
            raise InputError(f"--tracks {tracks}: there is no such file or folder")
        if tracks.is_file() and tracks.suffix.lower() != ".json" and len(files) > 1:
            raise InputError(f"--tracks {tracks}: is of one video, but {root} holds {len(files)}; give a folder")
    return [_unit(root, file, tracks) for file in files]


def decode(root: Path, unit: Unit, body: Body, preprocessing: str, *, tracks: Path | None = None) -> Decoded:
    """A clip of every person with a box, at the frames that have one. bbox: the square around it. The rows of a person
    without boxes, of the whole video, are crops as wide as the larger side of the picture.

    Where pictures do not follow each other evenly (phones, recorded calls), frame_index still counts pictures and fps
    is the mean; ``uneven_rate`` is then 1.
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
        people = {"0": Boxes(frames, np.broadcast_to(whole, (len(frames), 4)))}
    else:
        people = read_tracks(unit.images, tracks)
        counts |= {"people": len(people), "boxes_without_size": 0, "boxes_beyond_the_video": 0}
    clips = []
    for person, boxes in people.items():
        sized = (boxes.bbox[:, 2:] > 0).all(1) & (np.abs(boxes.bbox) < FARTHEST).all(1)  # NaN is not either
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
    count = len(frames)

    def nothing(*shape: int, kind: type = float) -> NDArray[Any]:
        return np.broadcast_to(np.zeros(1, kind), (count, *shape))

    side = box[:, 2:].max(1)
    return Clip(
        track_id=track,
        fps=timeline.fps,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=frames,
        image=FrameNames(video, frames),
        bbox=np.column_stack([box[:, :2] + box[:, 2:] / 2, side, side]),
        keypoints2d=nothing(len(SPIN49), 3),
        joints3d=nothing(len(SPIN49), 3),
        joints3d_valid=nothing(len(SPIN49), kind=bool),
        pose=nothing(24, 3),
        betas=nothing(10),
        has_3d=nothing(kind=bool),
        has_smpl=nothing(kind=bool),
        valid=~nothing(kind=bool),
    )


def _unit(root: Path, file: Path, tracks: Path | None) -> Unit:
    video = file.relative_to(root).as_posix()
    sources: list[dict[str, Any]] = [{"path": video, "bytes": file.stat().st_size}]
    if tracks is not None and (boxes := track_file(video, tracks)):
        content = boxes.read_bytes()
        sources.append({"path": boxes.name, "bytes": len(content), "hash": hashlib.sha256(content).hexdigest()[:16]})
    name = quote(video, safe=" ")
    if len(name) > LONGEST_NAME:  # file systems end at 255
        name = f"{name[: LONGEST_NAME - 17]}-{hashlib.sha256(video.encode()).hexdigest()[:16]}"
    return Unit(name, video, video, frames_said(file), tuple(sources))


VIDEO = video_decoder(None)
