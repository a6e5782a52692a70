"""Panels are at their places in the grid, and text is beside them, never over them."""

import numpy as np
import pytest

from glot.pictures.contact_sheet import GAP, TOP, Line, contact_sheet, grid, place
from glot.pictures.drawing import PAPER


def panels(count: int, *, height: int = 20, width: int = 30) -> list[np.ndarray]:
    """Grey panels, of the values 1, 2, ..."""
    return [np.full((height, width, 3), number + 1, np.uint8) for number in range(count)]


def test_a_grid_reads_like_a_page_and_ends_in_black() -> None:
    sheet = grid(panels(5), columns=3)
    assert sheet.shape == (40, 90, 3)
    assert sheet[::20, ::30, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    np.testing.assert_array_equal(
        grid(panels(6), columns=3), np.vstack([np.hstack(panels(6)[:3]), np.hstack(panels(6)[3:])])
    )


def test_panels_are_placed_from_a_corner_with_gaps() -> None:
    sheet = np.zeros((60, 80, 3), np.uint8)
    place(sheet, panels(4), columns=2, corner=(5, 7), gap=2)
    expected = np.zeros_like(sheet)
    for number, (y, x) in enumerate(((7, 5), (7, 37), (29, 5), (29, 37)), 1):
        expected[y : y + 20, x : x + 30] = number
    np.testing.assert_array_equal(sheet, expected)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_contact_sheet_has_its_text_beside_the_panels(columns: int) -> None:
    columns_of_panels = [panels(2, height=60, width=80) for _ in range(columns)]
    names = [[Line("first")], [Line("second"), Line("in two lines", 20)]]
    captions = [[Line(f"frame {number}", 15)] for number in range(columns)]
    sheet = contact_sheet(
        columns_of_panels, title="Title", names=names, captions=captions, left=110, foot=22, fewest_columns=2
    )
    assert sheet.shape == (TOP + 2 * (60 + GAP) + 22, 110 + max(columns, 2) * (80 + GAP), 3)
    paper = (sheet == PAPER).all(-1)
    for row in range(2):
        y = TOP + row * (60 + GAP)
        assert not paper[y : y + 60, :110].all()  # the row's name
        for column in range(columns):
            x = 110 + column * (80 + GAP)
            assert (sheet[y : y + 60, x : x + 80] == row + 1).all()
            assert not paper[-22:, x : x + 80].all()  # the column's caption
    assert not paper[:TOP].all()
    assert paper[TOP:-22, 110 + columns * (80 + GAP) :].all()
