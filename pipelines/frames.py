"""Clips in, crops out: every picture is read and decoded once for all its people, ahead of whoever works on them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.crop import crop_image
from glot.errors import InputError
from pipelines.clips import Clip
from pipelines.decoders.insta_variety import MARK, read_record_picture

START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # of a JPEG file, of its picture data, of the file


class Unreadable(Exception):
    """A picture that cannot be had; the message is the reason."""


class Frame(NamedTuple):
    """One picture with the crops of its people; ``reason`` is empty, or says why there are none."""

    image: str
    people: list[tuple[int, int]]  # (clip, row in it)
    crops: list[NDArray[np.uint8]]  # (224, 224, 3) RGB, one for each of people
    reason: str = ""


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


def read_crops(root: Path, clips: Sequence[Clip], *, threads: int = 1, ahead: int = 16) -> Iterator[Frame]:
    """Frames in time order; up to ``ahead`` pictures are read and cropped in the background while one is worked on."""
    people: dict[str, list[tuple[int, int]]] = {}
    when: dict[str, int] = {}
    for number, clip in enumerate(clips):
        for row, image in enumerate(clip.image):
            people.setdefault(image, []).append((number, row))
            when[image] = min(int(clip.frame_index[row]), when.get(image, 2**31))
    pending: deque[Future[Frame]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for image in sorted(people, key=lambda image: (when[image], image)):
                pending.append(pool.submit(_frame, root, clips, image, people[image]))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _frame(root: Path, clips: Sequence[Clip], image: str, people: list[tuple[int, int]]) -> Frame:
    try:
        picture = decode_picture(read_record_picture(root, image)) if MARK in image else read_picture(root / image)
    except (Unreadable, InputError) as error:
        return Frame(image, people, [], str(error))
    return Frame(image, people, [crop_image(picture, clips[c].bbox[row], clips[c].crop_scale) for c, row in people])
