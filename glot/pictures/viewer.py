"""A ViewSpec in; a page that shows a video's bodies in the browser out, by viser."""

import io
import signal
import threading
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.motion.motion_files import read_motion
from glot.motion.person_motion import Motion
from glot.people.seeking import SeekableVideo
from glot.people.video import Unreadable
from glot.pictures.spec import ViewSpec
from glot.pictures.viewer_scene import BodyScene

if TYPE_CHECKING:
    import viser

SPEEDS = (0.25, 0.5, 1.0, 2.0)  # 1.0 is the frame rate of the video
TICK = 0.015  # seconds between two readings of the page's controls
VIEWS = ("as filmed", "from the side")


def view(spec: ViewSpec) -> None:
    """Serves the page until Ctrl-C. InputError for results or a video that cannot be shown."""
    if find_spec("viser") is None:
        raise InputError("the viewer needs viser, which is not installed; pip install 'viser>=1.1'")
    motions = read_motions(spec.results)
    video = open_video(spec.video, motions[0]) if spec.video else None
    viewer = Viewer(motions, load_body(spec.body), video, host=spec.host, port=spec.port)
    people = "1 person" if len(motions) == 1 else f"{len(motions)} people"
    print(f"{people}, frames {viewer.first} to {viewer.last}: open {viewer.url} (Ctrl-C ends the viewer)", flush=True)
    # Raised within viser, a KeyboardInterrupt could leave one of its locks held, and the viewer would never end.
    signal.signal(signal.SIGINT, viewer.interrupt)
    viewer.run()
    viewer.close()


@dataclass(frozen=True)
class Controls:
    """The state of the page's controls."""

    frame: int
    playing: bool
    speed: float
    picture: bool  # whether the video's picture is shown
    people: tuple[bool, ...]  # whether each person is shown


class Viewer:
    """A page at ``url``. ``run`` draws what its controls select, in the thread that calls ``run``."""

    def __init__(
        self,
        motions: list[Motion],
        body: Body,
        video: SeekableVideo | None,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        import viser

        self.video, self.fps = video, motions[0].fps
        self.first = int(min(motion.frames[0] for motion in motions))
        self.last = int(max(motion.frames[-1] for motion in motions))
        self.drawn: Controls | None = None  # what the scene shows now
        self.ended, self.interrupted = threading.Event(), False
        self.play_start = 0.0, self.first  # when playing began (s), and with which frame
        with redirect_stdout(io.StringIO()):  # viser prints its addresses, and a line when it ends
            self.server = viser.ViserServer(host=host, port=port, label="glot", verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        self.scene = BodyScene(self.server.scene, motions, body, video)
        self._add_controls(motions)
        self.server.on_client_connect(lambda client: self._turn(client, VIEWS[0]))

    def run(self) -> None:
        """Draws until ``close`` or ``interrupt`` is called."""
        while not self.ended.wait(TICK) and not self.interrupted:
            self.draw(self.played(self.controls(), time.monotonic()))

    def interrupt(self, *_: object) -> None:
        """Handles the first Ctrl-C: ``run`` ends after this picture. The next one ends the program at once."""
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def played(self, controls: Controls, now: float) -> Controls:
        """While the video plays, moves the slider to the frame of the time ``now`` (s).

        If drawing takes longer than a frame lasts, frames are skipped.
        """
        drawn = self.drawn
        if not controls.playing or drawn is None:
            return controls
        if not drawn.playing or (drawn.frame, drawn.speed) != (controls.frame, controls.speed):
            self.play_start = now, controls.frame  # play was just switched on, or the slider was moved
        start, frame = self.play_start
        passed = int((now - start) * self.fps * controls.speed + 1e-6)
        frame = self.first + (frame - self.first + passed) % (self.last - self.first + 1)
        self.slider.value = frame  # type: ignore[misc]
        return replace(controls, frame=frame)

    def close(self) -> None:
        self.ended.set()
        with redirect_stdout(io.StringIO()):
            self.server.stop()
        if self.video:
            self.video.close()

    def controls(self) -> Controls:
        """The current state of the page's controls."""
        return Controls(
            frame=int(self.slider.value),
            playing=bool(self.play.value),
            speed=float(self.speed.value),
            picture=self.video is not None and bool(self.picture.value),
            people=tuple(bool(box.value) for box in self.people),
        )

    def draw(self, controls: Controls) -> None:
        """Changes the scene to what ``controls`` select. Unchanged parts are not computed again."""
        before, self.drawn = self.drawn, controls
        moved = before is None or before.frame != controls.frame
        with self.server.atomic():
            if moved or before is None or before.people != controls.people:
                self.scene.show_bodies(controls.frame, controls.people)
            if self.scene.screen is not None:
                self.scene.screen.visible = controls.picture
                if controls.picture and (moved or before is None or not before.picture):
                    self.scene.show_picture(controls.frame)

    def _add_controls(self, motions: list[Motion]) -> None:
        gui = self.server.gui
        gui.configure_theme(control_width="small", show_logo=False, show_share_button=False)
        last = max(self.last, self.first + 1)  # a slider needs two different ends
        self.slider = gui.add_slider("frame", min=self.first, max=last, step=1, initial_value=self.first)
        self.play = gui.add_checkbox("play", False)
        self.speed = gui.add_dropdown("speed", [str(rate) for rate in SPEEDS], initial_value="1.0")
        self.picture = gui.add_checkbox("picture", True, visible=self.video is not None)
        views = gui.add_button_group("view", VIEWS)
        self.people = [
            gui.add_checkbox(f"person {motion.person}", True, hint=f"{len(motion)} frames") for motion in motions
        ]
        views.on_click(lambda event: self._turn(event.client, event.target.value))

    def _turn(self, client: "viser.ClientHandle | None", view: str) -> None:
        """Turns a client's camera to one of VIEWS; from there, the mouse turns the scene about the people."""
        if client is None:
            return
        with client.atomic():
            turn = self.scene.as_filmed if view == VIEWS[0] else self.scene.from_the_side
            turn(client.camera, int(self.slider.value))


def read_motions(results: Path) -> list[Motion]:
    """The motions in a file or a folder, each person once (.npz before .parquet).

    InputError if there is no motion, or if the motions are not from one video.
    """
    files = [results]
    if results.is_dir():
        found = sorted(path for path in results.iterdir() if path.suffix in (".npz", ".parquet"))
        once = {path.stem: path for path in reversed(found)}
        files = [once[stem] for stem in sorted(once, key=lambda stem: (len(stem), stem))]  # person-2 before person-10
        if not files:
            raise InputError(
                f"{results}: no person's .npz or .parquet in this folder; python -m glot.predict makes them"
            )
    motions = [read_motion(path) for path in files]
    if len({(motion.width, motion.height, motion.focal, motion.fps) for motion in motions}) > 1:
        raise InputError(f"{results}: holds people from videos of several sizes; view one video at a time")
    return motions


def open_video(path: Path, motion: Motion) -> SeekableVideo:
    """The video of the motion. InputError if it cannot be read, or its pictures have another size."""
    try:
        video = SeekableVideo(path)
        height, width = video.read(0).shape[:2]
    except Unreadable as error:
        raise InputError(f"--video {path}: {error}") from None
    if (width, height) != (motion.width, motion.height):
        raise InputError(
            f"--video {path}: its pictures are {width} x {height}, the results are of {motion.width} x {motion.height}"
        )
    return video
