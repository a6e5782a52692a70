"""Clips in, crops out. Each picture is read once for all of its people, in the background."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.crop_rules import CropRule
from glot.people.files import read_bytes
from glot.people.video import Cut, Unreadable, Videos, video_frame
from pipelines.decoders.clips import Clip
from pipelines.decoders.insta_variety import MARK, read_record_picture

# Markers in a JPEG file: its first bytes, the start of its picture data, its last bytes.
START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"

SQUARE = CropRule()
Alter = Callable[[NDArray[np.uint8], Clip, int], NDArray[np.uint8]]  # (crop, clip, row) -> another crop


class Frame(NamedTuple):
    """One picture with the crops of its people. ``crops`` is None where the picture could not be read."""

    image: str
    people: list[tuple[int, int]]  # (number of the clip, row in it)
    crops: list[NDArray[np.uint8]] | None  # (size, size, 3) RGB, one for each person
    reason: str = ""  # why the picture could not be read


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture (H, W, 3) BGR. Raises Unreadable, also for a truncated JPEG, which OpenCV would return half grey.

    NotNowError if the disk fails: that is not the picture's fault.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    return decode_picture(content)


def decode_picture(content: bytes) -> NDArray[np.uint8]:
    """The content of a picture file -> (H, W, 3) BGR. Raises Unreadable as ``read_picture`` does."""
    # Picture data cannot contain either marker by chance. An embedded thumbnail has both, but before the main picture.
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
    rule: CropRule = SQUARE,
    alter: Alter | None = None,
    threads: int = 1,
    ahead: int = 16,
    starts: Mapping[str, Cut] | None = None,
    entries: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Frame]:
    """The pictures of all clips in time order, each with crops by ``rule``; one video after the other.

    A rule that does not follow the dataset's crop scale needs clips of ``with_rule``.

    Up to ``ahead`` pictures are read and cropped in the background while the caller works on one. ``alter`` replaces
    each crop; it runs in the reading threads. ``starts`` are the cuts from which videos are read (see
    ``glot.people.video.Videos``), ``entries`` the videos' sizes and times when they were listed.
    """
    pending: deque[Future[Frame]] = deque()
    videos = Videos(root, threads=threads, starts=starts, entries=entries)
    reader = _Reader(root, videos, clips, rule, alter)
    # A video is read forwards, by a single thread; its decoder uses the other threads.
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool, ThreadPoolExecutor(1, "read-video") as single:
        try:
            for image, people in _in_order(clips):
                pending.append((single if video_frame(image) else pool).submit(reader.frame, image, people))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            single.shutdown(wait=True, cancel_futures=True)
            videos.close()


def with_rule(clip: Clip, rule: CropRule, *, is_cropped: bool = False) -> Clip:
    """The clip with the crop scales of a rule; as it is for a rule that follows the dataset.

    ``is_cropped``: the pictures are crops already, which a rule only resizes.
    """
    if rule.follows_dataset or is_cropped:
        return clip
    return replace(clip, crop_scale=rule.scales(clip.bbox, clip.box_size).astype(np.float32))


def _in_order(clips: Sequence[Clip]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Pictures with their people, (clip, row) each. Clips are in time order, so they are merged without a list."""

    def rows(number: int, clip: Clip) -> Iterator[tuple[tuple[str, int, str], int, int]]:
        for row, image in enumerate(clip.image):
            yield (*(video_frame(image) or ("", int(clip.frame_index[row]))), image), number, row

    merged = heapq.merge(*(rows(number, clip) for number, clip in enumerate(clips)))
    for (_, _, image), group in itertools.groupby(merged, key=lambda item: item[0]):
        yield image, [(number, row) for _, number, row in group]


@dataclass(frozen=True)
class _Reader:
    """Reads pictures and crops them; used by several threads."""

    root: Path
    videos: Videos
    clips: Sequence[Clip]
    rule: CropRule
    alter: Alter | None

    def frame(self, image: str, people: list[tuple[int, int]]) -> Frame:
        try:
            picture = self._picture(image)
        except (Unreadable, InputError) as error:
            return Frame(image, people, None, str(error))
        return Frame(image, people, [self._crop(picture, self.clips[number], row) for number, row in people])

    def _picture(self, image: str) -> NDArray[np.uint8]:
        if MARK in image:
            return decode_picture(read_record_picture(self.root, image))
        if place := video_frame(image):
            return self.videos.read(*place)
        return read_picture(self.root / image)

    def _crop(self, picture: NDArray[np.uint8], clip: Clip, row: int) -> NDArray[np.uint8]:
        crop = self.rule.cut(picture, clip.bbox[row], clip.feature_scale or clip.scale_of(row))
        return self.alter(crop, clip, row) if self.alter else crop
