"""One track's bodies by several models in; the models side by side out, as in the paper's Figures 1, 7 and 11.

N frames of a track, V vertices, J = 14 joints. Bodies are red where they are far from the truth, with the pelvises of
both at the same place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from glot.pictures.comparison import centred_joints, largest_apart
from glot.pictures.contact_sheet import MARGIN, TOP, Line, contact_sheet
from glot.pictures.drawing import PAPER, Picture, fitted, write
from glot.pictures.track_pictures import ORANGE, PREDICTED, TrackRenderer
from glot.scoring.metrics import HIPS

PANEL = 256  # px, width and height of a crop in the sheet
SIDE = 160  # px, width of a side view in the sheet, whose height is PANEL
LEFT = 196  # px, width of the names of the sheet's rows
FEWEST_COLUMNS = 2  # the title is as wide as two columns
FOOT = 34  # px, height of the errors under a panel
FILM_WIDTH = 1920  # px, the largest width of the film, unless its panels are of the smallest size
FILM_PANELS = 240, 400  # px, smallest and largest width and height of the film's panels
HEAD = 34  # px, height of the captions of the film
BAR = 8  # px, height of the bar of an error, and of the colour scale
FULL = 0.25  # m of error at the end of the colour scale; a bar of this error is as long as its panel
COLOURS = LinearSegmentedColormap.from_list("error", [PREDICTED, (0.93, 0.78, 0.62), (0.84, 0.16, 0.12)])


class FrameErrors(NamedTuple):
    """The errors of one frame, mm."""

    mpjpe: float
    pa_mpjpe: float

    def __str__(self) -> str:
        return f"PA-MPJPE {self.pa_mpjpe:.0f}, MPJPE {self.mpjpe:.0f} mm"


@dataclass(frozen=True)
class ModelBodies:
    """A track's bodies by one model."""

    name: str  # its caption
    drawn: TrackRenderer
    errors: dict[int, FrameErrors]  # frame index -> errors, for the frames that have a ground truth

    @property
    def mean(self) -> FrameErrors | None:
        """The means over the frames; None without ground truth."""
        return FrameErrors(*np.mean(list(self.errors.values()), axis=0).tolist()) if self.errors else None

    def errors_at(self, i: int) -> FrameErrors | None:
        return self.errors.get(int(self.drawn.frame_index[i]))


@dataclass(frozen=True)
class ModelComparison:
    """The bodies of one track by two or more models, of the same frames."""

    models: tuple[ModelBodies, ...]
    apart: NDArray[np.float32]  # (N,) m: how far joints are from each other, the mean over joints and pairs of models

    @property
    def first(self) -> TrackRenderer:
        """The renderer whose pictures and truth are drawn; they are the same for all models."""
        return self.models[0].drawn

    @property
    def has_truth(self) -> bool:
        return self.first.true_cam is not None

    def colours(self, model: ModelBodies, i: int) -> NDArray[np.float32] | None:
        """(V, 3) RGB 0-1 of a model's body in frame i: blue at the truth, red far from it. None without true bodies."""
        if not self.has_truth or not self.first.truth.scored[i]:
            return None
        (true, true_joints), (vertices, joints) = self.first.posed(i, true=True), model.drawn.posed(i)
        shift = joints[list(HIPS)].mean(axis=0) - true_joints[list(HIPS)].mean(axis=0)
        distance = np.linalg.norm(vertices - true - shift, axis=-1)
        return COLOURS((distance / FULL).clip(0, 1))[:, :3].astype(np.float32)


def compare_models(models: list[ModelBodies]) -> ModelComparison:
    """Compares two or more models' bodies of the same frames."""
    joints = [centred_joints(model.drawn) for model in models]
    pairs = [np.linalg.norm(a - b, axis=-1).mean(axis=-1) for a, b in combinations(joints, 2)]
    return ModelComparison(tuple(models), np.mean(pairs, axis=0).astype(np.float32))


def moments(comparison: ModelComparison, count: int) -> list[int]:
    """``count`` rows to show, spread over the track: those where the models differ most."""
    return largest_apart(comparison.apart, count)


def sheet(comparison: ModelComparison, rows: list[int], *, title: str) -> Picture:
    """Frames from left to right; from the top down: the input, the truth, and each model's body with its errors."""
    columns = [_column(comparison, i) for i in rows]
    names = [[Line("input", scale=0.6)]]
    if comparison.has_truth:
        names.append([Line("ground truth", scale=0.6)])
    names += [_row_name(model) for model in comparison.models]
    no_captions: list[list[Line]] = [[] for _ in rows]
    out = contact_sheet(
        columns, title=title, names=names, captions=no_captions, left=LEFT, foot=0, fewest_columns=FEWEST_COLUMNS
    )
    _legend(out, comparison, (MARGIN, TOP + 24), width=LEFT - 3 * MARGIN, side="right: side view")
    return out


def film(comparison: ModelComparison) -> Iterator[Picture]:
    """Frames of the video: the input, the truth and each model's body, side by side; below, each from the side."""
    count = len(comparison.models) + 1 + comparison.has_truth
    size = min(max(FILM_WIDTH // count, FILM_PANELS[0]), FILM_PANELS[1]) // 2 * 2
    for i in range(len(comparison.first)):
        columns = [np.concatenate(panels) for panels in _film_columns(comparison, i, size)]
        yield np.concatenate(columns, axis=1)


def _film_columns(comparison: ModelComparison, i: int, size: int) -> Iterator[list[Picture]]:
    """The panels of frame i from the top down, column by column: caption, crop, side view, errors."""
    first = comparison.first
    crop, to_panel = first.crop(i, size)
    note = _paper(size, size)
    write(note, f"frame {first.frame_index[i]}", (12, 32), scale=0.7)
    write(note, "the models differ by", (12, 62), scale=0.5)
    write(note, f"{1000 * comparison.apart[i]:.0f} mm", (12, 84), scale=0.5)
    _legend(note, comparison, (12, size - 92), width=size - 60, side="this row: side views")
    yield [_caption("input", size), crop, note, _paper(FOOT, size)]
    if comparison.has_truth:
        panels = [first.overlay(i, crop, to_panel, true=True), first.side_view(i, size, true=True)]
        yield [_caption("ground truth", size), *panels, _paper(FOOT, size)]
    for model in comparison.models:
        colours = comparison.colours(model, i)
        panels = [
            model.drawn.overlay(i, crop, to_panel, colours=colours),
            model.drawn.side_view(i, size, colours=colours),
        ]
        yield [_caption(model.name, size), *panels, _errors(model.errors_at(i), size)]


def _column(comparison: ModelComparison, i: int) -> list[Picture]:
    """The panels of frame i from the top down, each a crop and a side view with the errors under them."""
    first = comparison.first
    crop, to_panel = first.crop(i, PANEL)
    note = _paper(PANEL, SIDE)
    write(note, f"frame {first.frame_index[i]}", (10, 28), scale=0.6)
    write(note, "the models differ by", (10, 56))
    write(note, f"{1000 * comparison.apart[i]:.0f} mm", (10, 76))
    panels = [_panel(crop, note, None)]
    if comparison.has_truth:
        panels.append(
            _panel(first.overlay(i, crop, to_panel, true=True), _narrow(first.side_view(i, PANEL, true=True)), None)
        )
    for model in comparison.models:
        colours = comparison.colours(model, i)
        over = model.drawn.overlay(i, crop, to_panel, colours=colours)
        side = _narrow(model.drawn.side_view(i, PANEL, colours=colours))
        panels.append(_panel(over, side, model.errors_at(i)))
    return panels


def _panel(crop: Picture, side: Picture, errors: FrameErrors | None) -> Picture:
    """(PANEL + FOOT, PANEL + SIDE, 3): a crop, what is beside it, and the errors under both."""
    return np.concatenate([np.concatenate([crop, side], axis=1), _errors(errors, PANEL + SIDE)])


def _narrow(side: Picture) -> Picture:
    """The middle SIDE px of a side view."""
    start = (side.shape[1] - SIDE) // 2
    return side[:, start : start + SIDE]


def _errors(errors: FrameErrors | None, width: int) -> Picture:
    """(FOOT, width, 3): a frame's errors as a line of text over a bar as long as the PA-MPJPE. Empty without errors."""
    strip = _paper(FOOT, width)
    if errors is None:
        return strip
    share = min(errors.pa_mpjpe / 1000 / FULL, 1.0)
    text, scale = fitted(str(errors), width - 8, scale=0.5)
    write(strip, text, (4, 17), scale=scale)
    strip[22 : 22 + BAR, 4 : 4 + max(round(share * (width - 8)), 1)] = np.array(COLOURS(share)[:3]) * 255
    return strip


def _caption(text: str, width: int) -> Picture:
    """(HEAD, width, 3): the caption of a column of the film."""
    head = _paper(HEAD, width)
    text, scale = fitted(text, width - 16, scale=0.65)
    write(head, text, (8, 23), scale=scale)
    return head


def _row_name(model: ModelBodies) -> list[Line]:
    """A model's caption, and its mean errors over the track."""
    name, scale = fitted(model.name, LEFT - 2 * MARGIN, scale=0.6)
    lines = [Line(name, -24, scale)]
    if model.mean:
        lines.append(Line("mean of the track, mm:", 2, scale=0.42))
        lines.append(Line(f"PA-MPJPE {model.mean.pa_mpjpe:.1f}", 22, scale=0.45))
        lines.append(Line(f"MPJPE {model.mean.mpjpe:.1f}", 42, scale=0.45))
    return lines


def _legend(picture: Picture, comparison: ModelComparison, at: tuple[int, int], *, width: int, side: str) -> None:
    """What colours and side views are; the first line of text is at ``at`` (x, y)."""
    x, y = at
    write(picture, side, (x, y))
    if comparison.first.truth.scored.any():
        write(picture, "orange: true joints", (x, y + 20), colour=ORANGE)
    if comparison.has_truth:
        write(picture, "distance to the truth:", (x, y + 44))
        picture[y + 52 : y + 52 + BAR, x : x + width] = COLOURS(np.linspace(0, 1, width))[:, :3] * 255
        write(picture, "0", (x, y + BAR + 66), scale=0.4)
        write(picture, f"{1000 * FULL:.0f} mm", (x + width - 46, y + BAR + 66), scale=0.4)


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, np.uint8)
