"""The body is drawn where its keypoints are, and every moment has its place."""

import numpy as np
import pytest

from glot.human.body import Body, load_body
from glot.human.crop import crop_matrix
from glot.motion.person_motion import Motion
from glot.pictures.contact_sheet import GAP, TOP
from glot.pictures.person_sheet import LEFT, PANEL, moments, sheet
from tests.fixtures.motion import moving

GREY = 127


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def panel(still: np.ndarray, row: int, column: int) -> np.ndarray:
    y, x = TOP + row * (PANEL + GAP), LEFT + column * (PANEL + GAP)
    return still[y : y + PANEL, x : x + PANEL].astype(int)


def pictures(motion: Motion) -> dict[int, np.ndarray]:
    """Grey pictures, each a little brighter than the one before, of the frames that the sheet shows."""
    frames = motion.frames[moments(len(motion))].tolist()
    return {frame: np.full((motion.height, motion.width, 3), GREY + frame, np.uint8) for frame in frames}


def drawn_of(motion: Motion, body: Body) -> np.ndarray:
    return sheet(motion.rows(moments(len(motion))), body, pictures(motion), frames=len(motion))


def test_the_body_stands_at_its_keypoints(body: Body) -> None:
    motion = moving(body)
    still = drawn_of(motion, body)
    for column, row in enumerate(moments(len(motion)).tolist()):
        matrix = crop_matrix(motion.bbox[row], motion.crop_scale[row], size=PANEL)
        x, y = (motion.keypoints2d[row] @ matrix[:, :2].T + matrix[:, 2]).T
        drawn = np.abs(panel(still, 1, column) - panel(still, 0, column)).sum(-1) > 30
        assert 0.03 < drawn.mean() < 0.5
        inside = (x > 2) & (x < PANEL - 2) & (y > 2) & (y < PANEL - 2)
        assert inside.sum() > 12
        at = drawn[y[inside].round().astype(int), x[inside].round().astype(int)]
        assert at.mean() > 0.9  # joints lie inside the body
        rows, columns = np.nonzero(drawn)
        assert columns.min() > x.min() - 40 and columns.max() < x.max() + 40
        assert rows.min() > y.min() - 60 and rows.max() < y.max() + 40


def test_each_moment_shows_its_picture_and_the_side(body: Body) -> None:
    motion = moving(body)
    still = drawn_of(motion, body)
    for column, row in enumerate(moments(len(motion)).tolist()):
        middle = panel(still, 0, column)[PANEL // 2, PANEL // 2]
        assert middle.tolist() == [GREY + motion.frames[row]] * 3
        side = np.nonzero((panel(still, 2, column) != 245).any(-1))
        assert np.ptp(side[0]) > 0.5 * PANEL and len(side[0]) > 0.03 * PANEL**2


def test_short_motions_have_narrow_sheets(body: Body) -> None:
    for frames, count in (([4], 1), ([4, 9], 2), (range(100), 6)):
        motion = moving(body, frames=frames)
        rows = moments(len(motion))
        assert len(rows) == count and rows[0] == 0 and rows[-1] == len(motion) - 1
        width = drawn_of(motion, body).shape[1]
        assert width == LEFT + max(count, 2) * (PANEL + GAP)
