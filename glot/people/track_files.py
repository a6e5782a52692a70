"""Files of boxes of people, made by another program (JSON, or the MOT challenge's text), in; boxes of videos out.

``tracks`` is a JSON file of one video or of many; a MOT file of one video; or a folder with a file for each video. In a
folder, the file of cam1/walk.mp4 is cam1/walk.mp4.json or cam1/walk.json, or, if no other video has that name,
walk.mp4.json or walk.json. Instead of .json the ending may be .txt or .csv, for MOT's text.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import basename, splitext
from typing import BinaryIO, cast

from glot.errors import InputError, NotNowError, is_passing
from glot.location import list_folder
from glot.people.box_formats.json_tracks import iterate_json, some_of
from glot.people.box_formats.mot_files import read_mot
from glot.people.files import open_file
from glot.people.frame_boxes import FrameBoxes, VideoBoxes

__all__ = ["FrameBoxes", "VideoBoxes", "iterate_tracks", "match_tracks", "read_tracks"]
JSON = ".json"
TRACK_FILES = (JSON, ".txt", ".csv")


def match_tracks(videos: Sequence[str], tracks: Path) -> dict[str, Path | InputError]:
    """The file of each video's boxes, or that there is none. ``videos``: all of the set, paths below its root.

    A folder is listed once. InputError if it is unclear which video a file belongs to, or if ``tracks`` is a MOT file
    and there are several videos. Whether a JSON file is about several videos is seen when it is read.
    """
    if not tracks.exists():
        raise InputError(f"--tracks {tracks}: there is no such file or folder")
    if tracks.is_file():
        if tracks.suffix.lower() != JSON and len(videos) > 1:
            raise InputError(f"--tracks {tracks}: is about one video, but there are {len(videos)}; give a folder")
        return dict.fromkeys(videos, tracks)
    try:
        files = list_folder(tracks, recursive=True)
    except OSError as error:
        raise _failure(error, tracks) from None
    found = {video: next((name for name in _own(video) + _bare(video) if name in files), None) for video in videos}
    _check_clear(found, tracks)
    return {video: tracks / name if name else _without(video, tracks) for video, name in found.items()}


def read_tracks(video: str, tracks: Path) -> VideoBoxes:
    """The boxes of the people in one video. ``video``: its path below the root, as in ``match_tracks``.

    InputError if there are none, or if the file is not in one of the formats.
    """
    path: Path | None = tracks
    if not tracks.is_file():
        paths = (tracks / name for name in _own(video) + _bare(video))
        path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise _without(video, tracks)
    boxes = _one(path, video)
    if isinstance(boxes, InputError):
        raise boxes
    return boxes


def iterate_tracks(videos: Sequence[str], tracks: Path) -> Iterator[tuple[str, VideoBoxes | InputError]]:
    """Each of ``videos`` once, with its boxes, or with what is wrong with them; in any order.

    ``videos`` are all videos of the set, paths below its root. A file is read once, and only one video is in memory.
    InputError if the names of entries or files do not say which video they belong to, or if a file of many videos is
    not readable to its end; NotNowError if a file cannot be read now.
    """
    files = match_tracks(videos, tracks)
    if tracks.suffix.lower() != JSON or not tracks.is_file():
        for video, path in files.items():
            yield video, path if isinstance(path, InputError) else _one(path, video)
        return
    try:
        with open_file(tracks) as file:
            yield from iterate_json(cast(BinaryIO, file), tracks, videos)
    except OSError as error:
        raise _failure(error, tracks) from None


def _one(path: Path, video: str) -> VideoBoxes | InputError:
    """The boxes in a file that was chosen for one video."""
    try:
        with open_file(path) as file:
            if path.suffix.lower() == JSON:
                ((_, boxes),) = iterate_json(cast(BinaryIO, file), path, [video])
                return boxes
            return read_mot(file)
    except InputError as error:
        return error
    except ValueError as error:
        return InputError(f"{path}: holds no boxes of {video} in the MOT format ({error})")
    except OSError as error:
        if isinstance(failure := _failure(error, path), InputError):
            return failure
        raise failure from None


def _own(video: str) -> list[str]:
    """Names of files that belong to this video only, the best first."""
    return [base + suffix for base in (video, splitext(video)[0]) for suffix in TRACK_FILES]


def _bare(video: str) -> list[str]:
    """Names of files at the top of the folder that belong to the video if no other has its name."""
    return _own(basename(video))


def _check_clear(found: dict[str, str | None], tracks: Path) -> None:
    """InputError if a file that was chosen for a video could be another video's."""
    users, called = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for video, file in found.items():
        if file:
            users[file].append(video)
        name = basename(video)
        for bare in {name, splitext(name)[0]}:
            called[bare].append(video)
    for video, file in found.items():
        if file is None:
            continue
        base, ending = splitext(file)
        fitting = users[file] if file in _own(video) else called[base]
        if len(fitting) > 1:
            raise InputError(
                f"--tracks {tracks}: {file} could be for {some_of(fitting)}; call it by the path of its video below "
                f"the root and with the video's ending, for example {video}{ending}"
            )


def _without(video: str, tracks: Path) -> InputError:
    return InputError(f"{video}: {tracks} has no boxes for it; expected a file {video}{JSON} or .txt")


def _failure(error: OSError, path: Path) -> Exception:
    reason = error.strerror or str(error)
    return NotNowError(f"{path}: {reason}") if is_passing(error) else InputError(f"{path}: {reason}")
