"""A folder in; its videos, and the names of their results, out."""

from pathlib import Path

from glot.capture.capture_options import CaptureOptions
from glot.errors import InputError
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


def check_tracks(videos: dict[str, Path], options: CaptureOptions) -> None:
    """InputError if --tracks is a file about one video, and there are several."""
    tracks = options.tracks
    if tracks is not None and tracks.is_file() and tracks.suffix.lower() != ".json" and len(videos) > 1:
        raise InputError(f"--tracks {tracks}: is about one video, but there are {len(videos)}; give a folder")
