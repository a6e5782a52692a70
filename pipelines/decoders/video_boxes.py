"""Videos and the file or folder of boxes in; the entries of the boxes for the plan, and the boxes themselves, out.

A folder has a file for each video, whose entry is {path, bytes, modified or etag}. A JSON file may hold many videos:
the entry of each is {path, hash of its own boxes}, so that adding a video to the file changes nothing for the others.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from glot.errors import InputError
from glot.location import is_remote, list_folder
from glot.people.frame_boxes import VideoBoxes
from glot.people.track_files import iterate_tracks, match_tracks
from glot.people.versions import version_of
from glot.retries import retried
from pipelines.decoders.source_entries import Before, Entry


class PlannedBoxes(NamedTuple):
    """What the plan notes of the boxes of each video; videos without boxes have no entry."""

    entries: Mapping[str, dict[str, Any]]  # by the video's path
    facts: Mapping[str, dict[str, Any]]  # by the video's path: "boxes_in", its own file, or "no_boxes", the reason
    note: Entry | None = None  # the entry of the file of all videos


def is_shared(tracks: Path) -> bool:
    """Whether ``tracks`` is a file that holds the boxes of many videos."""
    return tracks.suffix.lower() == ".json" and tracks.is_file()


def find_boxes(videos: Sequence[str], tracks: Path, before: Before) -> PlannedBoxes:
    """The entries of all ``videos``. A file of many videos is read only if it has changed since ``before``."""
    if is_shared(tracks):
        note = _entry(tracks)
        hashes = before.hashes  # empty in a first run: they come when the boxes are read for the plan
        if hashes and before.tracks != note:
            hashes = {video: hash_of(boxes) for video, boxes in boxes_of(videos, tracks)}
        entries = {video: {"path": tracks.name, "hash": hashes[video]} for video in videos if video in hashes}
        return PlannedBoxes(dict.fromkeys(videos, {"path": tracks.name}) | entries, {}, note)
    found = match_tracks(videos, tracks)
    folder = tracks if tracks.is_dir() else tracks.parent
    there = list_folder(folder, recursive=True)
    files: dict[str, dict[str, Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for video, path in found.items():
        if isinstance(path, InputError):
            facts[video] = {"no_boxes": str(path)}
            continue
        size, stamp = there[path.relative_to(folder).as_posix()]
        files[video] = {"path": path.name, "bytes": size, "etag" if isinstance(stamp, str) else "modified": stamp}
        facts[video] = {"boxes_in": str(path)}
    return PlannedBoxes(files, facts)


def boxes_of(
    videos: Sequence[str], tracks: Path, wanted: Collection[str] | None = None
) -> Iterator[tuple[str, VideoBoxes | str]]:
    """The boxes of the ``wanted`` ones (None: all) of all ``videos``, each once, or the reason why there are none.

    They come in the order in which they are read; only one video is in memory.
    """
    for video, boxes in iterate_tracks(videos, tracks):
        if wanted is None or video in wanted:
            yield video, str(boxes) if isinstance(boxes, InputError) else boxes


def hash_of(boxes: VideoBoxes | str) -> str:
    """The hash of a video's boxes, "" where it has none."""
    return "" if isinstance(boxes, str) else boxes.hash


def _entry(path: Path) -> dict[str, Any]:
    if is_remote(path):
        place = cast(Any, path)
        version = version_of(retried(lambda: place.fs.info(place.path), path, remote=True))
        return {"path": path.name, "bytes": version.bytes, "etag": version.mark}
    status = path.stat()
    return {"path": path.name, "bytes": status.st_size, "modified": status.st_mtime_ns}
