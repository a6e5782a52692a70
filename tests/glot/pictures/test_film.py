"""Bodies are drawn where their keypoints are, only in their frames, and the nearer one in front."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glot.human.body import Body, load_body
from glot.motion.motion_files import write_motion
from glot.motion.person_motion import Motion, with_bodies
from glot.pictures.film import colour_of, film
from tests.fixtures.motion import GAPPY, moving

GREY = 127


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def filmed(motions: list[Motion], body: Body, folder: Path, frames: int) -> list[np.ndarray]:
    files = []
    for motion in motions:
        files.append((range(int(motion.frames[0]), int(motion.frames[-1]) + 1), folder / f"{motion.person}.parquet"))
        write_motion([motion], files[-1][1])
    one = motions[0]
    grey = np.full((one.height, one.width, 3), GREY, np.uint8)
    return list(film(((frame, grey) for frame in range(frames)), files, body))


def test_the_body_is_drawn_at_its_keypoints_in_its_frames(body: Body, tmp_path: Path) -> None:
    motion = moving(body)
    frames = filmed([motion], body, tmp_path, GAPPY[-1] + 3)
    assert {frame.shape for frame in frames} == {(360, 640 + 360, 3)}
    for number, frame in enumerate(frames):
        drawn = (np.abs(frame[:, :640].astype(int) - GREY) > 10).any(-1)
        if number not in GAPPY:
            assert not drawn.any()
            continue
        x, y = motion.keypoints2d[GAPPY.index(number)].T.round().astype(int)
        inside = (x > 1) & (x < 638) & (y > 1) & (y < 358)
        assert inside.sum() > 12 and drawn[y[inside], x[inside]].mean() > 0.9
        assert 0.01 < drawn.mean() < 0.3
        assert (frame[30:330, 640:] != 245).any()  # and from the side


def test_the_nearer_body_covers_the_other(body: Body, tmp_path: Path) -> None:
    near = moving(body, person="near", frames=[0, 1])
    away = with_bodies(near, body, rotmats=near.rotmats, betas=near.betas, transl=near.transl * 1.3)
    for names in (("near", "far"), ("far", "near")):  # in either order
        cast = [near if name == "near" else replace(away, person="far") for name in names]
        left = filmed(cast, body, tmp_path, 2)[1][:, :640].astype(float)
        x, y = near.keypoints2d[1, 0].round().astype(int)
        shades = [np.linalg.norm(np.cross(left[y, x] / 255, colour_of(number))) for number in (0, 1)]
        assert names[int(np.argmin(shades))] == "near"
