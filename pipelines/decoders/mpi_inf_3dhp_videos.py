"""MPI-INF-3DHP's folders in; its videos out: their names, files, frame rates, and the pictures of each.

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
from glot.people.video import Unreadable, Video
from pipelines.decoders.clips import Unit
from pipelines.decoders.dataset_facts import mpi_inf_3dhp_fps
from pipelines.decoders.frames import read_picture
from pipelines.decoders.source_entries import NOTHING, Before, file_source, pictures_source

CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # 8 of the 14 cameras; published sets leave out the others, which look from above
TEST_FOLDER = "mpi_inf_3dhp_test_set"
TEST_FPS = 25.0  # not documented; the videos are as long as training videos at 25 fps
LONGEST = 1_000_000  # frames; the broken header of a video may hold any number
ENDINGS = (".jpg", ".jpeg", ".png")  # how the names of picture files end


class Source(NamedTuple):
    """One video of the dataset."""

    name: str  # of its unit
    track: str  # the name of its clips without _seg0, _seg1, ..., as in the published sets
    folder: str
    annotation: str  # S1/Seq1/annot.mat#0: the cameras of a sequence share a file
    images: str  # a folder, or a video
    camera: int  # -1 in the test split
    fps: float


class Pictures(NamedTuple):
    """The n pictures of a video, in time order."""

    names: list[str]  # paths below the root, or video#frame
    numbers: NDArray[np.int64]  # (n,) frames of the video, 0-based
    size: tuple[int, int]  # width and height of all pictures, px


def sources(root: Path, split: str) -> list[Source]:
    """The videos of a split, in the order of the published sets."""
    names = []
    if split == "train":
        for folder in root.glob("S*/Seq*"):
            if (found := re.fullmatch(r"S(\d+)/Seq(\d+)", folder.relative_to(root).as_posix())) and folder.is_dir():
                names += [(int(found[1]), int(found[2]), camera) for camera in CAMERAS]
        return [source_of(root, "S{}_Seq{}_video_{}".format(*name)) for name in sorted(names)]
    folders = [folder.name for folder in _test_folder(root).glob("TS*") if folder.is_dir()]
    subjects = sorted(int(name[2:]) for name in folders if re.fullmatch(r"TS\d+", name))
    return [source_of(root, f"TS{subject}") for subject in subjects]


def source_of(root: Path, name: str) -> Source:
    """The video of the unit called ``name``, such as S1_Seq1_video_0 or TS1."""
    if name.startswith("TS"):
        folder = (_test_folder(root) / name).relative_to(root).as_posix()
        annotation, images = f"{folder}/annot_data.mat", f"{folder}/imageSequence"
        return Source(name, f"subj{name[2:]}", folder, annotation, images, -1, TEST_FPS)
    subject, sequence, camera = (int(number) for number in re.findall(r"\d+", name))
    folder, fps = f"S{subject}/Seq{sequence}", mpi_inf_3dhp_fps(subject, sequence)
    track = f"subj{subject}_seq{sequence}_vid{camera}"
    return Source(name, track, folder, f"{folder}/annot.mat#{camera}", _images(root, folder, camera), camera, fps)


def unit_of(root: Path, source: Source, before: Before = NOTHING) -> Unit:
    """The unit of a video. Missing files have 0 bytes, an unreadable video has 0 frames."""
    annotation = {**file_source(root, source.annotation.partition("#")[0]), "path": source.annotation}
    if not (root / source.images).is_file():
        pictures = pictures_source(root, source.images, _is_picture, before, unit=source.name)
        return Unit(source.name, source.annotation, source.images, pictures["files"], (annotation, pictures))
    video_source, frames = file_source(root, source.images), 0
    if not before.is_same(video_source):
        try:
            video = Video(root / source.images)
            frames = video.frames
            video.close()
        except Unreadable:
            pass
    return Unit(source.name, source.annotation, source.images, frames, (annotation, video_source))


def find_pictures(root: Path, source: Source) -> Pictures:
    """The pictures of a video, from its folder or from the video file.

    InputError if there are no pictures, if two have the same number, or if the labels are for pictures of another size.
    """
    path = root / source.images
    if path.is_file():
        return _pictures_of_video(root, source)
    if not path.is_dir():
        raise InputError(f"{source.images}: there is no such folder, and no video, but {source.annotation} needs it")
    found: dict[int, str] = {}
    for name in sorted(os.listdir(path)):
        stem, ending = os.path.splitext(name)
        digits = re.search(r"\d+$", stem)
        if ending.lower() in ENDINGS and digits:
            if int(digits[0]) in found:
                raise InputError(f"{source.images}: {found[int(digits[0])]} and {name} have the same number")
            found[int(digits[0])] = name
    if not found:
        raise InputError(f"{source.images}: no pictures in it")
    first = min(1, *found)  # ffmpeg numbers from 1
    numbers = np.array(sorted(found))
    names = [f"{source.images}/{found[number]}" for number in numbers.tolist()]
    size = _picture_size(root, names, source)
    _check_size(root, source, size)
    return Pictures(names, numbers - first, size)


def _pictures_of_video(root: Path, source: Source) -> Pictures:
    try:
        video = Video(root / source.images)
    except Unreadable as error:
        raise InputError(f"{source.images}: {error}") from None
    video.close()
    if not 0 < video.frames <= LONGEST:
        raise InputError(f"{source.images}: claims to hold {video.frames} pictures; unpack it into a folder")
    size = (video.width, video.height)
    _check_size(root, source, size)
    names = [f"{source.images}#{number}" for number in range(video.frames)]
    return Pictures(names, np.arange(video.frames), size)


def _test_folder(root: Path) -> Path:
    return root / TEST_FOLDER if (root / TEST_FOLDER).is_dir() else root


def _images(root: Path, folder: str, camera: int) -> str:
    """The folder of pictures if there are some, else the video, else the folder where the pictures should be."""
    usual = f"{folder}/video_{camera}"
    for path in (usual, f"{folder}/imageFrames/video_{camera}", f"{folder}/imageSequence/video_{camera}"):
        if _holds_pictures(root / path):
            return path
    videos = (f"{folder}/imageSequence/video_{camera}.avi", f"{folder}/video_{camera}.avi")
    return next((path for path in videos if (root / path).is_file()), usual)


def _holds_pictures(folder: Path) -> bool:
    """Whether there is a picture in the folder. Only the first files are looked at, not a whole long list."""
    try:
        with os.scandir(folder) as files:
            return any(_is_picture(file.name) for file in files)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS


def _picture_size(root: Path, names: Sequence[str], source: Source) -> tuple[int, int]:
    """Width and height of the first picture that can be read."""
    for name in names:
        try:
            height, width = read_picture(root / name).shape[:2]
        except Unreadable:
            continue
        return width, height
    raise InputError(f"{source.images}: none of its {len(names)} pictures can be read")


def _check_size(root: Path, source: Source, size: tuple[int, int]) -> None:
    """InputError where the pictures have another size than the camera.

    Labels are pixels of the camera. Some tools store smaller pictures, which would all be cropped at wrong places.
    """
    path = root / source.folder / "camera.calibration"
    if source.camera >= 0 and path.is_file():
        text = path.read_text(errors="replace")
        found = re.search(rf"^\s*name\s+{source.camera}\s*$.*?^\s*size\s+(\d+)\s+(\d+)", text, re.M | re.S)
        if found and (int(found[1]), int(found[2])) != size:
            raise InputError(f"{source.images}: {size[0]}x{size[1]} px, but labelled for {found[1]}x{found[2]}")
