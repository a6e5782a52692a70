"""Bodies drawn over pictures and from the side, lines of text, and pictures written as a video."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.location import temporary_of
from glot.pictures.renderer import Scene

Picture = NDArray[np.uint8]  # (H, W, 3) RGB

INK, PAPER = (40, 40, 40), (245, 245, 245)
BODY_COLOUR = (0.45, 0.62, 0.90)  # colour of a predicted body, RGB 0-1
OPACITY = 0.9  # opacity of a body over a picture
SMALLER = (0.5, 0.42, 0.36)  # scales of text that does not fit at its usual scale
SIDE_VIEW_METRES = 2.3  # width and height of a side view
SIDE_VIEW_DISTANCE = 60.0  # m from the camera to the body; so far away, there is hardly any perspective
# The renderer's scenes have y up and z towards the viewer; bodies are in the camera's frame: y down, z away.
TO_SCENE = np.diag([1.0, -1.0, -1.0, 1.0])
SIDEWAYS = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # a view from the camera's right; y stays


def draw_body(
    background: Picture,
    vertices: NDArray,
    faces: NDArray,
    intrinsics: NDArray,
    colours: NDArray[np.floating],
) -> Picture:
    """The body (vertices (V, 3) m, camera frame) over a copy of the background, through a camera (3, 3).

    ``colours`` (3,) or (V, 3), RGB 0-1. Only the part of the picture that the body covers is rendered.
    """
    pixels = vertices @ intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    size = np.array([background.shape[1], background.shape[0]])
    low = np.clip(np.floor(pixels.min(axis=0)) - 1, 0, size).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)) + 2, 0, size).astype(int)
    out = background.copy()
    if (high <= low).any():
        return out  # the body is outside the picture
    covered = out[low[1] : high[1], low[0] : high[0]]
    scene = Scene(covered.shape[1], covered.shape[0], supersample=2)
    scene.set_background(covered)
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
    scene.set_camera(shift @ intrinsics, TO_SCENE)
    scene.set_mesh("body", vertices * np.diag(TO_SCENE)[:3], faces, colours=colours)
    covered[...] = cv2.addWeighted(scene.render(), OPACITY, covered.copy(), 1 - OPACITY, 0)
    return out


def side_view(
    centred: NDArray, faces: NDArray, size: int, colours: NDArray[np.floating], *, raised: float = 0.0
) -> Picture:
    """(size, size, 3): a body (vertices (V, 3) m from its pelvis, camera frame) from the camera's right.

    The pelvis is in the middle, or ``raised`` metres above it.
    """
    paper = np.full((size, size, 3), PAPER, np.uint8)
    points, intrinsics = sideways(centred, size, raised=raised)
    return draw_body(paper, points, faces, intrinsics, colours)


def sideways(centred: NDArray, size: int, *, raised: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 3) m from the pelvis, as the camera of a ``side_view`` sees them, and its intrinsics (3, 3)."""
    focal = size / SIDE_VIEW_METRES * SIDE_VIEW_DISTANCE
    intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return centred @ SIDEWAYS.T + [0, -raised, SIDE_VIEW_DISTANCE], intrinsics


def write(picture: Picture, text: str, at: tuple[int, int], *, colour: tuple = INK, scale: float = 0.45) -> None:
    """Puts a line of text into the picture; its baseline starts ``at`` (x, y)."""
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def fitted(text: str, width: int, *, scale: float = 0.45) -> tuple[str, float]:
    """The text and its scale, so that the line is at most ``width`` px wide: smaller first, then cut, with "..."."""

    def wide(line: str, size: float) -> bool:
        return cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0] > width

    scales = [scale, *(size for size in SMALLER if size < scale)]
    size = next((size for size in scales if not wide(text, size)), scales[-1])
    short = text
    while len(short) > 4 and wide(short, size):
        short = short.removesuffix("...")[:-1].rstrip() + "..."
    return short, size


def write_video(path: Path, frames: Iterator[Picture], *, fps: float) -> None:
    """Writes an .mp4 (H.264) that players and browsers open. The file appears under its name when it is complete.

    InputError if PyAV was built without an H.264 encoder.
    """
    import av  # here, so that modules that only draw do not need it

    if "libx264" not in av.codecs_available:
        raise InputError(
            "this build of PyAV has no H.264 encoder; install its wheel (pip install --force-reinstall av)"
        )
    rate = Fraction(fps).limit_denominator(1001) if np.isfinite(fps) and fps > 0 else Fraction(25)
    temporary = temporary_of(path)
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
            stream.pix_fmt = "yuv420p"
            for picture in frames:
                if stream.width != picture.shape[1]:  # the first picture gives the size of the video
                    stream.height, stream.width = picture.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
