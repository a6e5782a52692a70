"""A clip before and after the local branch's correction in; both bodies side by side out, as in the paper's Figure 5.

N frames of a track, V vertices, J = 14 joints. What a correction moves is measured pelvis on pelvis, in metres.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

from glot.human.joints import COMMON14
from glot.pictures.drawing import INK, PAPER, Picture, write
from glot.pictures.track_pictures import ORANGE, Clip
from glot.scoring.metrics import HIPS

MOMENTS = 6
PANEL = 256  # px, of the sheet
VIDEO_HEIGHT = 400  # px
BAR = 12  # px
COLOURS = matplotlib.colormaps["turbo"]
NAMED = 0.6  # a joint is named when it moves at least this share of what the one that moves most does


@dataclass(frozen=True)
class Comparison:
    """One track, twice."""

    before: Clip  # the global branch's bodies
    after: Clip  # the same frames, corrected
    moved: NDArray[np.float32]  # (N, J) m, how far the correction moves each of the 14 joints

    @property
    def most(self) -> float:
        """Metres that the end of the colour scale stands for: what the correction moves any joint of the track."""
        return float(np.ceil(self.moved.max() * 100) / 100) or 0.01

    def colours(self, i: int) -> NDArray[np.float32]:
        """(V, 3) RGB 0-1 of the corrected body of frame i: blue where it was left alone, red where it moved most."""
        (before, hips), (after, new_hips) = self.before.posed(i), self.after.posed(i)
        shift = new_hips[list(HIPS)].mean(axis=0) - hips[list(HIPS)].mean(axis=0)
        distance = np.linalg.norm(after - before - shift, axis=-1)
        return COLOURS(0.1 + 0.8 * (distance / self.most).clip(0, 1))[:, :3].astype(np.float32)

    def said(self, i: int) -> str:
        """The joints that move most in frame i, in words."""
        order = np.argsort(-self.moved[i])
        named = [j for j in order[:3] if self.moved[i, j] >= NAMED * self.moved[i, order[0]]]
        return ", ".join(f"{spoken(COMMON14[j])} {1000 * self.moved[i, j]:.0f}" for j in named) + " mm"


def compare(before: Clip, after: Clip) -> Comparison:
    """Two clips of the same frames, whose ``params`` are the global branch's and the corrected ones."""
    with torch.no_grad():
        joints = [clip.body.joints14(clip.params.rotmats, clip.params.betas) for clip in (before, after)]
    centred = [each - each[:, list(HIPS)].mean(dim=1, keepdim=True) for each in joints]
    return Comparison(before, after, (centred[1] - centred[0]).norm(dim=-1).numpy())


def spoken(joint: str) -> str:
    """lwrist -> left wrist."""
    return {"l": "left ", "r": "right "}.get(joint[0], "") + joint[1 if joint[0] in "lr" else 0 :]


def moments(comparison: Comparison) -> list[int]:
    """Rows to show: of six stretches of equal length, the one in each whose joints the correction moves most."""
    total = comparison.moved.sum(axis=1)
    stretches = np.array_split(np.arange(len(total)), min(MOMENTS, len(total)))
    return [int(rows[total[rows].argmax()]) for rows in stretches]


def sheet(comparison: Comparison, *, title: str) -> Picture:
    """Moments from left to right; the crop, the body before and after the correction over it and from the side."""
    rows = [
        ("input", ""),
        ("global", "estimate"),
        ("corrected", ""),
        ("global,", "side view"),
        ("corrected,", "side view"),
    ]
    columns = moments(comparison)
    left, top, gap, foot = 110, 34, 4, 44
    out = np.full((top + len(rows) * (PANEL + gap) + foot, left + len(columns) * (PANEL + gap), 3), PAPER, np.uint8)
    write(out, title, (8, 22), scale=0.55)
    for r, lines in enumerate(rows):
        for line, text in enumerate(lines):
            write(out, text, (8, top + r * (PANEL + gap) + PANEL // 2 + 20 * line))
    before, after = comparison.before, comparison.after
    if after.truth.scored.any():
        for r in (3, 4):
            write(out, "orange: truth", (8, top + r * (PANEL + gap) + PANEL // 2 + 40), colour=ORANGE, scale=0.4)
    for place, i in enumerate(columns):
        plain, to_panel = after.crop(i, PANEL)
        colours = comparison.colours(i)
        panels = [
            plain,
            before.overlay(i, plain, to_panel),
            after.overlay(i, plain, to_panel, colours=colours),
            before.side_view(i, PANEL),
            after.side_view(i, PANEL, colours=colours),
        ]
        x = left + place * (PANEL + gap)
        for r, panel in enumerate(panels):
            y = top + r * (PANEL + gap)
            out[y : y + PANEL, x : x + PANEL] = panel
        y = out.shape[0] - foot
        write(out, f"frame {after.frame_index[i]}", (x + 4, y + 14), scale=0.45)
        write(out, comparison.said(i), (x + 4, y + 34), scale=0.38)
    legend(out, comparison.most, (8, top + 2 * (PANEL + gap) + PANEL - 40))
    return out


def film(comparison: Comparison) -> Iterator[Picture]:
    """Frames of the video: before, after with what moved in colour, and that from the side."""
    before, after = comparison.before, comparison.after
    height, width = after.pictures.size
    scale = VIDEO_HEIGHT / height
    panel_width = round(width * scale) // 2 * 2
    to_panel = np.array([[panel_width / width, 0, 0], [0, scale, 0]])
    for i in range(len(after)):
        plain = np.asarray(
            cv2.resize(after.pictures[i], (panel_width, VIDEO_HEIGHT), interpolation=cv2.INTER_AREA), np.uint8
        )
        colours = comparison.colours(i)
        panels = [before.overlay(i, plain, to_panel), after.overlay(i, plain, to_panel, colours=colours)]
        side = after.side_view(i, VIDEO_HEIGHT, colours=colours)
        frame = np.concatenate([*panels, side], axis=1)
        x = 2 * panel_width + 8
        write(frame, f"frame {after.frame_index[i]}, moved by the correction:", (x, 18), scale=0.42)
        write(frame, comparison.said(i), (x, 38), scale=0.42)
        legend(frame, comparison.most, (x, VIDEO_HEIGHT - 34))
        for text, start in (("global", 0), ("corrected", panel_width)):
            write(frame, text, (start + 9, 21), colour=PAPER, scale=0.6)
            write(frame, text, (start + 8, 20), scale=0.6)
        yield frame


def legend(picture: Picture, most: float, at: tuple[int, int], *, width: int = 92) -> None:
    """The colour scale with its ends in mm, its upper left corner ``at`` (x, y)."""
    x, y = at
    picture[y : y + BAR, x : x + width] = (COLOURS(np.linspace(0.1, 0.9, width))[:, :3] * 255).astype(np.uint8)
    write(picture, "0", (x, y + BAR + 14), colour=INK, scale=0.38)
    write(picture, f"{1000 * most:.0f} mm", (x + width - 48, y + BAR + 14), colour=INK, scale=0.38)
