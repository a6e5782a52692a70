"""Panels of one size in, a contact sheet out: the panels in a grid, with a title, names of the rows and captions.

Panels are (H, W, 3) uint8, RGB or BGR. Only the colours of the text depend on this order.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from glot.pictures.drawing import INK, PAPER, Picture, write

GAP = 4  # px, space to the right of a panel and below it
TOP = 34  # px, height of the title
MARGIN = 8  # px, space to the left of the title and of the rows' names


class Line(NamedTuple):
    """A line of text beside or below panels."""

    text: str
    down: int = 0  # px down to its baseline: from the middle of the row, or from the upper edge of the captions
    scale: float = 0.45
    colour: tuple[int, int, int] = INK


def grid(panels: Sequence[Picture], *, columns: int) -> Picture:
    """The panels side by side without gaps, ``columns`` in a row; the last row is filled up with black."""
    rows = -(-len(panels) // columns)
    height, width = panels[0].shape[:2]
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    place(sheet, panels, columns=columns)
    return sheet


def place(
    sheet: Picture, panels: Iterable[Picture], *, columns: int, corner: tuple[int, int] = (0, 0), gap: int = 0
) -> None:
    """Puts panels into ``sheet`` row by row, ``columns`` in a row. ``corner`` (x, y) is where the first begins."""
    for number, panel in enumerate(panels):
        height, width = panel.shape[:2]
        x = corner[0] + number % columns * (width + gap)
        y = corner[1] + number // columns * (height + gap)
        sheet[y : y + height, x : x + width] = panel


def row_top(row: int, height: int) -> int:
    """The y px at which the panels of a row begin in a ``contact_sheet`` of panels of ``height`` px."""
    return TOP + row * (height + GAP)


def contact_sheet(
    columns: Sequence[Sequence[Picture]],
    *,
    title: str,
    names: Sequence[Sequence[Line]],
    captions: Sequence[Sequence[Line]],
    left: int,
    foot: int,
    fewest_columns: int = 1,
) -> Picture:
    """The sheet of ``columns``, each of which has one panel a row, from the top down.

    ``names`` are the lines left of each row, ``captions`` those below each column. ``left`` and ``foot`` are
    the width and the height of these texts, px. The sheet is at least as wide as ``fewest_columns`` columns, so that
    its title fits.
    """
    height, width = columns[0][0].shape[:2]
    across = max(len(columns), fewest_columns)
    bottom = row_top(len(names), height)
    sheet: Picture = np.full((bottom + foot, left + across * (width + GAP), 3), PAPER, np.uint8)
    write(sheet, title, (MARGIN, 22), scale=0.55)
    by_rows = [panel for row in zip(*columns, strict=True) for panel in row]
    place(sheet, by_rows, columns=len(columns), corner=(left, TOP), gap=GAP)
    for row, lines in enumerate(names):
        middle = row_top(row, height) + height // 2
        for line in lines:
            write(sheet, line.text, (MARGIN, middle + line.down), colour=line.colour, scale=line.scale)
    for column, lines in enumerate(captions):
        x = left + column * (width + GAP) + 4
        for line in lines:
            write(sheet, line.text, (x, bottom + line.down), colour=line.colour, scale=line.scale)
    return sheet
