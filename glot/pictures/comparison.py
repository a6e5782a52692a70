"""A track before and after the local branch's correction in; both bodies side by side out, as in the paper's Figure 5.

N frames of a track, V vertices, J = 14 joints. Movements by the correction are in metres, with the pelvises of both
bodies at the same place.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import NDArray

from glot.human.joints import COMMON14
from glot.pictures.contact_sheet import MARGIN, Line, contact_sheet, row_top
from glot.pictures.drawing import INK, PAPER, Picture, write
from glot.pictures.track_pictures import ORANGE, TrackRenderer, joints_in_pieces
from glot.scoring.metrics import HIPS

MOMENTS = 6
PANEL = 256  # px, width and height of a panel of the sheet
LEFT, FOOT = 110, 44  # px: width of the rows' names, height of the captions
VIDEO_HEIGHT = 400  # px
BAR = 12  # px, height of the colour scale
COLOURS = matplotlib.colormaps["turbo"]
NAMED = 0.6  # a joint is named when it moves at least this share of the largest movement of a joint


@dataclass(frozen=True)
class Comparison:
    """The bodies of one track before and after the correction."""

    before: TrackRenderer  # the global branch's bodies
    after: TrackRenderer  # the same frames, corrected
    moved: NDArray[np.float32]  # (N, J) m, how far the correction moves each of the 14 joints

    @property
    def largest_move(self) -> float:
        """Metres at the end of the colour scale: how far the correction moves any joint of the track, rounded up."""
        return float(np.ceil(self.moved.max() * 100) / 100) or 0.01

    def colours(self, i: int) -> NDArray[np.float32]:
        """(V, 3) RGB 0-1 of the corrected body of frame i: blue where nothing moved, red where it moved most."""
        (before, hips), (after, new_hips) = self.before.posed(i), self.after.posed(i)
        shift = new_hips[list(HIPS)].mean(axis=0) - hips[list(HIPS)].mean(axis=0)
        distance = np.linalg.norm(after - before - shift, axis=-1)
        return COLOURS(0.1 + 0.8 * (distance / self.largest_move).clip(0, 1))[:, :3].astype(np.float32)

    def moved_joints(self, i: int) -> str:
        """The joints that move most in frame i, in words: "left wrist 41, left elbow 33 mm"."""
        order = np.argsort(-self.moved[i])
        named = [j for j in order[:3] if self.moved[i, j] >= NAMED * self.moved[i, order[0]]]
        return ", ".join(f"{joint_in_words(COMMON14[j])} {1000 * self.moved[i, j]:.0f}" for j in named) + " mm"


def compare(before: TrackRenderer, after: TrackRenderer) -> Comparison:
    """Compares renderers of the same frames, with the global branch's ``params`` and with the corrected ones."""
    return Comparison(before, after, np.linalg.norm(centred_joints(after) - centred_joints(before), axis=-1))


def centred_joints(track: TrackRenderer) -> NDArray[np.float32]:
    """(N, J, 3) m from the pelvis: the joints of a track's predicted bodies."""
    joints = joints_in_pieces(track.body.joints14, track.params)
    return joints - joints[:, list(HIPS)].mean(axis=1, keepdims=True)


def joint_in_words(joint: str) -> str:
    """lwrist -> left wrist."""
    return {"l": "left ", "r": "right "}.get(joint[0], "") + joint[1 if joint[0] in "lr" else 0 :]


def moments(comparison: Comparison) -> list[int]:
    """Six rows to show, spread over the track: those whose joints the correction moves most."""
    return largest_apart(comparison.moved.sum(axis=1), MOMENTS)


def largest_apart(values: NDArray[np.floating], count: int) -> list[int]:
    """Rows of the ``count`` largest of the values (N,), in order, that are at least N / (2 count) rows apart."""
    rest, chosen = values.astype(float), list[int]()
    reach = len(values) / (2 * count)
    for _ in range(min(count, len(values))):
        row = int(rest.argmax())
        chosen.append(row)
        rest[np.abs(np.arange(len(rest)) - row) < max(reach, 1)] = -np.inf
    return sorted(chosen)


def sheet(comparison: Comparison, *, title: str) -> Picture:
    """Moments from left to right. Each has the crop, the body before and after the correction, and both side views."""
    names = [
        [Line("input")],
        [Line("global"), Line("estimate", 20)],
        [Line("corrected")],
        [Line("global,"), Line("side view", 20)],
        [Line("corrected,"), Line("side view", 20)],
    ]
    before, after = comparison.before, comparison.after
    if after.truth.scored.any():
        for lines in names[3:]:
            lines.append(Line("orange: truth", 40, scale=0.4, colour=ORANGE))
    rows = moments(comparison)
    columns = []
    for i in rows:
        crop, to_panel = after.crop(i, PANEL)
        colours = comparison.colours(i)
        columns.append(
            [
                crop,
                before.overlay(i, crop, to_panel),
                after.overlay(i, crop, to_panel, colours=colours),
                before.side_view(i, PANEL),
                after.side_view(i, PANEL, colours=colours),
            ]
        )
    captions = [
        [Line(f"frame {after.frame_index[i]}", 14), Line(comparison.moved_joints(i), 34, scale=0.38)] for i in rows
    ]
    out = contact_sheet(columns, title=title, names=names, captions=captions, left=LEFT, foot=FOOT)
    draw_scale(out, comparison.largest_move, (MARGIN, row_top(2, PANEL) + PANEL - 40))
    return out


def film(comparison: Comparison) -> Iterator[Picture]:
    """Frames of the video: the body before, the corrected body coloured by how far it moved, and its side view."""
    before, after = comparison.before, comparison.after
    for i in range(len(after)):
        picture, to_panel = after.full_picture(i, VIDEO_HEIGHT)
        colours = comparison.colours(i)
        panels = [before.overlay(i, picture, to_panel), after.overlay(i, picture, to_panel, colours=colours)]
        side = after.side_view(i, VIDEO_HEIGHT, colours=colours)
        frame = np.concatenate([*panels, side], axis=1)
        width = picture.shape[1]
        x = 2 * width + 8
        write(frame, f"frame {after.frame_index[i]}, moved by the correction:", (x, 18), scale=0.42)
        write(frame, comparison.moved_joints(i), (x, 38), scale=0.42)
        draw_scale(frame, comparison.largest_move, (x, VIDEO_HEIGHT - 34))
        for text, start in (("global", 0), ("corrected", width)):
            write(frame, text, (start + 9, 21), colour=PAPER, scale=0.6)
            write(frame, text, (start + 8, 20), scale=0.6)
        yield frame


def draw_scale(picture: Picture, largest: float, at: tuple[int, int], *, width: int = 92) -> None:
    """The colour scale from 0 to ``largest`` metres, with its ends in mm; its upper left corner is ``at`` (x, y)."""
    x, y = at
    picture[y : y + BAR, x : x + width] = (COLOURS(np.linspace(0.1, 0.9, width))[:, :3] * 255).astype(np.uint8)
    write(picture, "0", (x, y + BAR + 14), colour=INK, scale=0.38)
    write(picture, f"{1000 * largest:.0f} mm", (x + width - 48, y + BAR + 14), colour=INK, scale=0.38)
