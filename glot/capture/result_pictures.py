"""A video and the motion files of its people in; a still of each person, and the film of all, out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.capture.result_files import person_file
from glot.human.body import Body
from glot.motion.motion_files import StoredMotion
from glot.motion.person_motion import Motion, joined
from glot.people.footage import Footage
from glot.people.landmarks import Person
from glot.pictures.drawing import Picture, write_video
from glot.pictures.film import film
from glot.pictures.person_sheet import moments, sheet

FILM = "overlay.mp4"


def draw(folder: Path, footage: Footage, people: Sequence[Person], body: Body, *, with_film: bool) -> list[str]:
    """Draws the stills, and the film if ``with_film``; returns the files' names. The video is read once."""
    files = [
        (range(int(person.frames[0]), int(person.frames[-1]) + 1), person_file(folder, person, ".parquet"))
        for person in people
    ]
    pictures = _draw_stills(enumerate(footage.pictures("drawing")), files, body)
    if with_film:
        write_video(folder / FILM, film(pictures, files, body), fps=footage.timeline.fps)
    else:
        for _ in pictures:
            pass
    return [path.with_suffix(".png").name for _, path in files] + [FILM] * with_film


def _draw_stills(
    pictures: Iterator[tuple[int, NDArray[np.uint8]]], files: Sequence[tuple[range, Path]], body: Body
) -> Iterator[tuple[int, Picture]]:
    """BGR pictures in, the same pictures as RGB out. Meanwhile, each person's still is drawn.

    ``files`` are (frames, motion file) of the people. A still is drawn as soon as its last picture was read.
    """
    open_stills: dict[int, tuple[Motion, dict[int, Picture]]] = {}
    for frame, picture in pictures:
        rgb: Picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
        for number, (frames, path) in enumerate(files):
            if frame == frames[0]:
                shown = _shown_rows(path)
                open_stills[number] = (shown, dict.fromkeys(shown.frames.tolist(), rgb))
            if number in open_stills:
                shown, kept = open_stills[number]
                if frame in kept:
                    kept[frame] = rgb
                if frame == frames[-1]:
                    drawn = cv2.cvtColor(sheet(shown, body, kept, frames=len(frames)), cv2.COLOR_RGB2BGR)
                    path.with_suffix(".png").write_bytes(cv2.imencode(".png", drawn)[1].tobytes())
                    del open_stills[number]
        yield frame, rgb


def _shown_rows(path: Path) -> Motion:
    """The rows of a motion that its still shows."""
    motion = StoredMotion(path)
    shown = joined([motion.rows(row, row + 1) for row in moments(len(motion)).tolist()])
    motion.close()
    return shown
