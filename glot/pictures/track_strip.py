"""A track's TrackRenderer in; a contact strip of six of its moments, and the frames of a video of it, out."""

from collections.abc import Iterator

import numpy as np

from glot.pictures.contact_sheet import Line, contact_sheet
from glot.pictures.drawing import Picture, write
from glot.pictures.track_pictures import ORANGE, TrackRenderer

MOMENTS = 6
PANEL = 256  # px, width and height of a panel of the strip
LEFT, FOOT = 110, 22  # px: width of the rows' names, height of the captions
VIDEO_HEIGHT = 400  # px


def strip(track: TrackRenderer, *, title: str) -> Picture:
    """The contact strip: moments from left to right. Each has the crop, the bodies over it, and the side view."""
    has_truth = track.true_cam is not None
    names = ["input", "prediction", *(["ground truth"] if has_truth else []), "side view"]
    lines = [[Line(name)] for name in names]
    if has_truth or track.truth.scored.any():
        lines[-1].append(Line("orange: truth", 20, scale=0.4, colour=ORANGE))
    rows = np.linspace(0, len(track) - 1, MOMENTS).round().astype(int).tolist()
    columns = []
    for i in rows:
        crop, to_panel = track.crop(i, PANEL)
        panels = [crop, track.overlay(i, crop, to_panel)]
        if has_truth:
            panels.append(track.overlay(i, crop, to_panel, true=True))
        columns.append([*panels, track.side_view(i, PANEL)])
    captions = [[Line(f"frame {track.frame_index[i]}", 15)] for i in rows]
    return contact_sheet(columns, title=title, names=lines, captions=captions, left=LEFT, foot=FOOT)


def film(track: TrackRenderer, *, errors: dict[int, float]) -> Iterator[Picture]:
    """Frames of the video: input, prediction over it, side view. ``errors``: frame index -> PA-MPJPE in mm."""
    for i in range(len(track)):
        picture, to_panel = track.full_picture(i, VIDEO_HEIGHT)
        side = track.side_view(i, VIDEO_HEIGHT)
        frame = np.concatenate([picture, track.overlay(i, picture, to_panel), side], axis=1)
        number = int(track.frame_index[i])
        caption = f"frame {number}" + (f"  PA-MPJPE {errors[number]:.0f} mm" if number in errors else "")
        write(frame, caption, (2 * picture.shape[1] + 8, 20), scale=0.5)
        yield frame
