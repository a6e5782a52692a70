"""Clips in, crops out: every picture is read and decoded once for all its people, ahead of whoever works on them."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.crop import CROP_SIZE, crop_image
from glot.people.video import Unreadable, Videos, video_frame
from pipelines.decoders.clips import Clip
from pipelines.decoders.insta_variety import MARK, read_record_picture

START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # of a JPEG file, of its picture data, of the file


Alter = Callable[[NDArray[np.uint8], Clip, int], NDArray[np.uint8]]


class Frame(NamedTuple):
    """One picture with the crops of its people. ``crops`` is None where the picture could not be read."""

    image: str
    people: list[tuple[int, int]]  # (clip, row in it)
    crops: list[NDArray[np.uint8]] | None  # (size, size, 3) RGB, one for each of people
    reason: str = ""  # why the picture could not be read


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) BGR. Raises Unreadable; a JPEG cut short is one, although OpenCV would return it half grey."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    return decode_picture(content)


def decode_picture(content: bytes) -> NDArray[np.uint8]:
    """A picture file's content -> (H, W, 3) BGR; raises Unreadable as ``read_picture`` does."""
    # Inside picture data neither marker can occur by chance; an embedded thumbnail has both, before the main picture's.
    if content.startswith(START) and content.rfind(END) <= content.rfind(SCAN):
        raise Unreadable("truncated JPEG")
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:
        picture = None
    if picture is None:
        raise Unreadable("not a readable picture" if content else "empty file")
    return picture  # type: ignore[return-value]


def read_crops(
    root: Path,
    clips: Sequence[Clip],
    *,
    size: int = CROP_SIZE,
    alter: Alter | None = None,
    threads: int = 1,
    ahead: int = 16,
) -> Iterator[Frame]:
    """Frames in time order, of videos one video after the other, with crops of ``size`` px; up to ``ahead`` pictures
    are read and cropped in the background while one is worked on.

    ``alter(crop, clip, row)`` returns what to put in the place of a crop; it runs in the reading threads.
    """
    pending: deque[Future[Frame]] = deque()
    videos = Videos(root, threads=threads)
    # A video is read forwards, so by one thread; its decoder has the others.
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool, ThreadPoolExecutor(1, "read-video") as single:
        try:
            for image, people in _in_order(clips):
                to = single if video_frame(image) else pool
                pending.append(to.submit(_frame, root, videos, clips, image, people, size, alter))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            single.shutdown(wait=True, cancel_futures=True)
            videos.close()


def _in_order(clips: Sequence[Clip]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Pictures with their people, (clip, row) each: clips are in time order, so they are merged, and none is listed."""

    def rows(number: int, clip: Clip) -> Iterator[tuple[tuple[str, int, str], int, int]]:
        for row, image in enumerate(clip.image):
            yield (*(video_frame(image) or ("", int(clip.frame_index[row]))), image), number, row

    merged = heapq.merge(*(rows(number, clip) for number, clip in enumerate(clips)))
    for (_, _, image), group in itertools.groupby(merged, key=lambda item: item[0]):
        yield image, [(number, row) for _, number, row in group]


def _frame(
    root: Path,
    videos: Videos,
    clips: Sequence[Clip],
    image: str,
    people: list[tuple[int, int]],
    size: int,
    alter: Alter | None,
) -> Frame:
    try:
        if MARK in image:
            picture = decode_picture(read_record_picture(root, image))
        elif part := video_frame(image):
            picture = videos.read(*part)
        else:
            picture = read_picture(root / image)
    except (Unreadable, InputError) as error:
        return Frame(image, people, None, str(error))
    crops = []
    for number, row in people:
        clip = clips[number]
        crop = crop_image(picture, clip.bbox[row], clip.feature_scale or clip.crop_scale, size=size)
        crops.append(alter(crop, clip, row) if alter else crop)
    return Frame(image, people, crops)
