"""A folder in; its videos, and the names of their results, out."""

from pathlib import Path

from glot.capture.capture_options import CaptureOptions
from glot.errors import InputError
from glot.people.track_files import iterate_tracks, match_tracks
from glot.people.video import VIDEOS


def find_videos(root: Path) -> dict[str, Path]:
    """The videos of a folder at any depth, or the one file: name of the result folder -> video.

    A name is the path without its suffix. Paths that differ only in their suffix keep it. InputError if there is no
    video.
    """
    if not root.exists():
        raise InputError(f"{root}: there is no such video or folder")
    if root.is_file():
        if root.suffix.lower() not in VIDEOS:
            raise InputError(f"{root}: not a known kind of video ({', '.join(VIDEOS)})")
        return {root.stem: root}
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    if not files:
        raise InputError(f"{root}: no videos in it ({', '.join(VIDEOS)})")
    short = [path.relative_to(root).with_suffix("").as_posix() for path in files]
    return {
        name if short.count(name) == 1 else path.relative_to(root).as_posix(): path
        for name, path in zip(short, files, strict=True)
    }


def name_in_tracks(root: Path, video: Path) -> str:
    """The name of a video in a file of --tracks: its path below ``root``, or its file name if ``root`` is the video."""
    return video.name if root.is_file() else video.relative_to(root).as_posix()


def check_tracks(root: Path, videos: dict[str, Path], options: CaptureOptions) -> None:
    """InputError if it is unclear which of the videos below ``root`` the boxes in --tracks belong to."""
    if options.tracks is None:
        return
    names = [name_in_tracks(root, video) for video in videos.values()]
    if len(names) > 1 and options.tracks.is_file():
        for _ in iterate_tracks(names, options.tracks):  # the names in a file of many videos are known at its end
            pass
    else:
        match_tracks(names, options.tracks)
