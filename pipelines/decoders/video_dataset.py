"""Videos of people in, clips out: each person at the boxes of a file, or one person who fills the picture.

Video files may be at any depth below the root. A picture is called "walk.mp4#12", counted from 0. No labels.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import SPIN49
from glot.people.frame_boxes import FrameBoxes
from glot.people.track_files import read_tracks
from glot.people.video import Timeline, Unreadable, read_timeline
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit, without_3d, without_smpl
from pipelines.decoders.source_entries import NOTHING, Before
from pipelines.decoders.unit_cuts import cut_video
from pipelines.decoders.video_boxes import find_boxes
from pipelines.decoders.video_files import VideoFiles, list_videos, printable

if TYPE_CHECKING:
    from glot.human.body import Body

SPLITS = ("test",)  # there are no labels to train on


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
        cut=cut_video,
        tracks=tracks,
    )


def find_units(root: Path, split: str, before: Before = NOTHING, *, tracks: Path | None = None) -> VideoFiles:
    """The videos, sorted by name. None is opened; decoding one that cannot be read reports that."""
    videos = list_videos(root)
    if tracks is None:
        return videos
    paths = [file.path for file in videos.files]
    if not tracks.exists():
        raise InputError(f"--tracks {tracks}: there is no such file or folder")
    if tracks.is_file() and tracks.suffix.lower() != ".json" and len(paths) > 1:
        raise InputError(f"--tracks {tracks}: is for one video, but {root} holds {len(paths)}; give a folder")
    videos.boxes = find_boxes(paths, tracks, before)
    return videos


def decode(root: Path, unit: Unit, body: "Body", preprocessing: str, *, tracks: Path | None = None) -> Decoded:
    """The clips of the pictures of a video in the unit's range: for each person, the frames in which it has a box.

    bbox: a square around the given box. Without ``tracks`` there is one clip, whose crops are as wide as the larger
    side of the picture.

    In a video without a constant frame rate (phones, recorded calls), frame_index still counts pictures and fps is the
    mean rate. The count ``uneven_rate`` is then 1. The counts of all ranges of a video add up to those of the video.
    """
    timeline = _timeline(root, unit)
    stop = timeline.frames if unit.stop is None else min(unit.stop, timeline.frames)
    first = unit.start == 0  # counts of the video as a whole are in its first range
    counts = {"frames": max(stop - unit.start, 0), "uneven_rate": int(first and not timeline.even), "rows": 0}
    if tracks is None:
        width, height = timeline.width, timeline.height
        side = max(width, height) / DEFAULT_CROP_SCALE
        whole = np.array([[(width - side) / 2, (height - side) / 2, side, side]])
        frames = np.arange(unit.start, stop)
        people: Mapping[str, FrameBoxes] = {"0": FrameBoxes(frames, np.broadcast_to(whole, (len(frames), 4)))}
    else:
        people = _people(unit, tracks)
        counts |= {"people": unit.facts.get("people", len(people) if first else 0)}
        counts |= {"boxes_without_size": 0, "boxes_beyond_the_video": 0}
        if left_out := unit.facts.get("left_out"):
            counts["boxes_left_out"] = left_out
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


def _timeline(root: Path, unit: Unit) -> Timeline:
    """The video's timeline, from the plan where the plan has it."""
    if (name := printable(unit.images)) != unit.images:
        raise InputError(f"{name}: its name is not UTF-8, in which names of pictures are stored; rename it")
    if "even" in unit.facts:
        return Timeline(**{name: unit.facts[name] for name in Timeline._fields})
    try:
        return read_timeline(root / unit.images, unit.sources[0])
    except Unreadable as error:
        raise InputError(f"{unit.images}: {error}") from None


def _people(unit: Unit, tracks: Path) -> Mapping[str, FrameBoxes]:
    """The boxes in the unit's range, from the plan where the plan has them."""
    if reason := unit.facts.get("no_boxes"):
        raise InputError(reason)
    if unit.boxes is not None:
        return unit.boxes
    people = read_tracks(unit.images, tracks).people
    return {person: boxes.between(unit.start, unit.stop) for person, boxes in people.items()}


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
        box_size=box[:, 2:],
        keypoints2d=np.broadcast_to(0.0, (count, len(SPIN49), 3)),
        valid=np.broadcast_to(True, (count,)),
        **without_3d(count),
        **without_smpl(count),
    )


VIDEO = video_decoder(None)
