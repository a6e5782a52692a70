"""The page in a real browser: bodies over their people, frames, play and toggles; and results it cannot show."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.motion.motion_files import write_motion
from glot.motion.person_motion import Motion
from glot.people.seeking import SeekableVideo
from glot.pictures.spec import ViewSpec
from glot.pictures.viewer import Viewer, open_video, read_motions, view
from tests.fixtures.browser import page
from tests.fixtures.motion import moving
from tests.fixtures.places import ROOT
from tests.fixtures.video import write_video

WIDTH, HEIGHT = 960, 560  # size of the page, px
FRAMES = (*range(8), *range(12, 20))  # a person who is out of sight in between
PATIENCE = 60.0  # seconds; WebGL runs in software, perhaps on a busy machine


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def motions(body: Body) -> list[Motion]:
    return [moving(body, person="1", frames=FRAMES), moving(body, person="2", frames=range(4, 6), seed=1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, motions: list[Motion]) -> Path:
    path = tmp_path_factory.mktemp("view")
    write_video(path / "walk.mp4", frames=24, size=(640, 360), codec="libx264")
    (path / "people").mkdir()
    write_motion([motions[0]], path / "people" / "1.npz")
    write_motion([motions[0]], path / "people" / "1.parquet")  # the same person
    write_motion([motions[1]], path / "people" / "2.parquet")
    return path


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[str]:
    """Runs the command, and gives the address of its page."""
    command = [sys.executable, "-m", "glot.view", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://[\d.:]+", process.stdout.readline())
            assert found
            yield found[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE) == 0
        finally:
            process.kill()


def screenshot(tab: Page) -> np.ndarray:
    """The page as it looks now, (H, W, 3) RGB."""
    shot = cv2.imdecode(np.frombuffer(tab.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(shot)[..., ::-1].astype(int)


def until(tab: Page, true: Callable[[np.ndarray], bool], what: str) -> None:
    """Waits for a screenshot (H, W, 3: RGB) of which ``true`` holds; ``what`` is for the error message."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if true(screenshot(tab)):
            return
    raise AssertionError(f"never seen: {what}")


def on_page(motion: Motion, x: float, y: float) -> tuple[int, int]:
    """Row and column of the page for a px of the video, in the view as filmed, whose margin is 5 % of the width."""
    scale = WIDTH / 1.05 / motion.width
    return round(HEIGHT / 2 + (y - motion.height / 2) * scale), round(WIDTH / 2 + (x - motion.width / 2) * scale)


def torso(motion: Motion, frame: int) -> list[tuple[int, int]]:
    """Rows and columns of the page where the person's hips, spine and chest are."""
    row = int(np.flatnonzero(motion.frames == frame)[0])
    joints = motion.joints3d[row, [0, 3, 6, 9]]
    pixels = joints[:, :2] / joints[:, 2:] * motion.focal + np.array([motion.width, motion.height]) / 2
    return [on_page(motion, *each) for each in pixels.tolist()]


def blue(shot: np.ndarray, at: list[tuple[int, int]]) -> bool:
    """Whether all these places have the first person's colour."""
    return all(shot[place][2] > 1.25 * shot[place][0] and shot[place][2] > 90 for place in at)


def silhouette(shot: np.ndarray) -> np.ndarray:
    """(H, W) where the first person's colour is, left of the controls."""
    return (shot[..., 2] > 1.25 * shot[..., 0]) & (shot[..., 2] > 90) & (np.arange(WIDTH) < WIDTH - 290)


@pytest.mark.slow
def test_bodies_stand_over_their_people_and_follow_the_controls(folder: Path, motions: list[Motion]) -> None:
    first = motions[0]
    with page(width=WIDTH, height=HEIGHT) as tab, served(str(folder / "people"), "--video", str(folder / "walk.mp4"),
                                                         "--port", "8371") as url:  # fmt: skip
        tab.goto(url)
        tab.wait_for_selector("canvas", timeout=1000 * PATIENCE)
        tab.get_by_label("person 1").wait_for(timeout=1000 * PATIENCE)
        tab.add_style_tag(content=".mantine-Notifications-root { display: none }")  # "Software WebGL rendering"
        # The film has a white square in its upper left sixteenth, and is dark elsewhere.
        inside, outside = on_page(first, 150, 80), on_page(first, 175, 100)

        def as_filmed(shot: np.ndarray) -> bool:
            return blue(shot, torso(first, 0)) and shot[inside].min() > 200 and shot[outside].max() < 80

        until(tab, as_filmed, "the first frame with its body over the picture")

        frame = tab.get_by_role("textbox").first
        frame.fill("7")
        frame.press("Enter")
        late = [place for place in torso(first, 7) if place not in torso(first, 0)]
        assert late
        until(tab, lambda shot: blue(shot, torso(first, 7)), "the body where it is in frame 7")

        frame.fill("9")
        frame.press("Enter")
        until(tab, lambda shot: not any(blue(shot, [at]) for at in torso(first, 7)), "a frame without anyone")

        frame.fill("14")
        frame.press("Enter")
        until(tab, lambda shot: blue(shot, torso(first, 14)), "the body back in sight")
        tab.get_by_label("person 1").click()
        until(tab, lambda shot: not any(blue(shot, [at]) for at in torso(first, 14)), "the person switched off")
        tab.get_by_label("person 1").click()
        tab.get_by_label("picture").click()
        until(tab, lambda shot: blue(shot, torso(first, 14)) and shot[outside].min() > 200, "no picture, only the body")

        filmed = silhouette(screenshot(tab))
        tab.get_by_text("from the side").click()

        def turned(shot: np.ndarray) -> bool:
            seen = silhouette(shot)
            return seen.sum() > 500 and (seen & filmed).sum() < 0.6 * (seen | filmed).sum()

        until(tab, turned, "the body from another side")

        before = frame.input_value()
        tab.get_by_label("play").click()
        end = time.monotonic() + PATIENCE
        while frame.input_value() == before:
            assert time.monotonic() < end, "it does not play"
            time.sleep(0.1)


def test_bodies_are_posed_only_when_they_are_shown(folder: Path, body: Body, motions: list[Motion]) -> None:
    posed: list[int] = []
    hook = body.register_forward_hook(lambda _, inputs, __: posed.append(len(inputs[0])))
    film = SeekableVideo(folder / "walk.mp4")
    viewer = Viewer(motions, body, film, host="127.0.0.1", port=8471)
    try:
        start = len(posed)
        assert sum(posed) <= len(motions)
        for frame, people in ((0, 1), (4, 2), (9, 0), (19, 1)):
            viewer.slider.value = frame
            viewer.draw(viewer.controls())
            assert posed[start:] == [1] * people
            assert [mesh.visible for mesh in viewer.scene.meshes] == [frame in motion.frames for motion in motions]
            viewer.draw(viewer.controls())  # drawing the same again poses no body
            assert posed[start:] == [1] * people
            start = len(posed)
    finally:
        hook.remove()
        viewer.close()


def test_playing_has_the_frame_rate_of_the_video_and_starts_again_at_its_end(body: Body, motions: list[Motion]) -> None:
    viewer = Viewer(motions, body, None, host="127.0.0.1", port=8481)
    try:
        assert (viewer.first, viewer.last, viewer.fps) == (0, 19, 25.0)

        def at(now: float, **changed) -> int:
            controls = viewer.played(replace(viewer.controls(), **changed), now)
            viewer.draw(controls)
            return controls.frame

        assert at(100.0) == 0
        assert [at(now, playing=True) for now in (101.0, 101.04, 101.05, 101.4, 101.76, 101.8)] == [0, 1, 1, 10, 19, 0]
        viewer.slider.value = 12  # moved by hand while it plays
        assert [at(now, playing=True) for now in (102.0, 102.08)] == [12, 14]
        assert [at(now, playing=True, speed=0.5) for now in (102.1, 102.18)] == [14, 15]
        assert at(103.0) == 15
        assert int(viewer.slider.value) == 15
    finally:
        viewer.close()


def test_a_folder_has_each_person_once(folder: Path) -> None:
    assert [motion.person for motion in read_motions(folder / "people")] == ["1", "2"]
    assert [motion.person for motion in read_motions(folder / "people" / "2.parquet")] == ["2"]


def test_mistakes_are_reported(
    folder: Path, body: Body, motions: list[Motion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        ViewSpec(results=tmp_path / "nowhere")
    with pytest.raises(InputError, match="--video .*nowhere.mp4: there is no such file"):
        ViewSpec(results=tmp_path, video=tmp_path / "nowhere.mp4")
    with pytest.raises(InputError, match="no person's .npz or .parquet"):
        read_motions(tmp_path)
    write_motion([motions[0]], tmp_path / "1.npz")
    write_motion([moving(body, focal=500.0)], tmp_path / "2.npz")
    with pytest.raises(InputError, match="of several sizes"):
        read_motions(tmp_path)
    with pytest.raises(InputError, match="pictures are 64 x 48, the results are of 640 x 360"):
        open_video(write_video(tmp_path / "other.mp4"), motions[0])
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(InputError, match="--video .*broken.mp4: not a readable video"):
        open_video(tmp_path / "broken.mp4", motions[0])
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(InputError, match="pip install 'viser"):
        view(ViewSpec(results=folder / "people"))
