"""Videos of all kinds, as cameras, phones and screen recorders write them."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_film(
    path: Path,
    *,
    frames: int = 12,
    size: tuple[int, int] = (64, 48),
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    turned: int = 0,
    ticks: list[int] | None = None,
) -> Path:
    """A white square in the upper left corner of a dark picture, brighter from frame to frame. ``turned`` is the
    rotation in the file's header, degrees counterclockwise; ``ticks`` are the times of the pictures, 1/100 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if ticks:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        if turned:
            stream.set_display_rotation(turned)
        for number in range(frames):
            picture = np.full((size[1], size[0], 3), 10 + 2 * (number % 100), np.uint8)
            picture[: size[1] // 4, : size[0] // 4] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks:
                frame.pts, frame.time_base = ticks[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
