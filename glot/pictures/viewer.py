"""Bodies of a video's people and the video in; a page to look at them in a browser out, by viser.

Everything stands in the camera's frame (x right, y down, z forward, metres): bodies where the results say, and the
picture on a screen behind them, so large that from the camera each body covers its person.
"""

import io
import threading
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.motion.motion_files import read_motion
from glot.motion.person_motion import Motion, vertices
from glot.people.seeking import SeekableVideo
from glot.people.video import Unreadable

if TYPE_CHECKING:
    import viser

COLOURS = (  # RGB, one person after the other
    (115, 158, 230), (236, 160, 90), (120, 190, 120), (214, 112, 128), (160, 130, 210), (110, 190, 200), (205, 185, 90),
)  # fmt: skip
SCREEN_WIDTH = 960  # px at most, of the picture that is sent
BEHIND = 0.8  # metres from the person farthest away to the screen
FRAME_RATES = (0.25, 0.5, 1.0, 2.0)  # of the video's
TICK = 0.015  # seconds between two looks at what the page wants


@dataclass(frozen=True)
class Wanted:
    """What the page asks for."""

    frame: int
    playing: bool
    speed: float
    picture: bool
    people: tuple[bool, ...]


class Viewer:
    """A page at ``url``. ``run`` draws what it asks for, in the thread that calls it; bodies are posed when shown."""

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

        self.motions, self.body, self.video = motions, body, video
        one = motions[0]
        self.fps, self.size, self.focal = one.fps, (one.width, one.height), one.focal
        self.first = int(min(motion.frames[0] for motion in motions))
        self.last = int(max(motion.frames[-1] for motion in motions))
        self.shown: Wanted | None = None
        self.ended = threading.Event()
        self.began = 0.0, self.first  # when playing began, and with which frame
        with redirect_stdout(io.StringIO()):  # viser draws a box with its addresses, and says when it ends
            self.server = viser.ViserServer(host=host, port=port, label="glot", verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        self._furnish()
        self._add_controls()
        self.server.on_client_connect(self._as_filmed)

    def run(self) -> None:
        """Until ``close`` is called."""
        while not self.ended.wait(TICK):
            self.draw(self.played(self.wanted(), time.monotonic()))

    def played(self, wanted: Wanted, now: float) -> Wanted:
        """Moves the slider to what is due at ``now`` (s) when the video plays; drawing too slowly leaves frames out."""
        shown = self.shown
        if not wanted.playing or shown is None:
            return wanted
        if not shown.playing or (shown.frame, shown.speed) != (wanted.frame, wanted.speed):
            self.began = now, wanted.frame  # just switched on, or someone moved the slider meanwhile
        when, frame = self.began
        passed = int((now - when) * self.fps * wanted.speed + 1e-6)
        frame = self.first + (frame - self.first + passed) % (self.last - self.first + 1)
        self.slider.value = frame  # type: ignore[misc]
        return replace(wanted, frame=frame)

    def close(self) -> None:
        self.ended.set()
        with redirect_stdout(io.StringIO()):
            self.server.stop()
        if self.video:
            self.video.close()

    def wanted(self) -> Wanted:
        return Wanted(
            frame=int(self.slider.value),
            playing=bool(self.play.value),
            speed=float(self.speed.value),
            picture=self.video is not None and bool(self.picture.value),
            people=tuple(bool(box.value) for box in self.people),
        )

    def draw(self, wanted: Wanted) -> None:
        """Brings the scene to what is ``wanted``; nothing is done twice."""
        before, self.shown = self.shown, wanted
        moved = before is None or before.frame != wanted.frame
        with self.server.atomic():
            if moved or before is None or before.people != wanted.people:
                for motion, mesh, visible in zip(self.motions, self.meshes, wanted.people, strict=True):
                    row = int(np.searchsorted(motion.frames, wanted.frame))
                    there = row < len(motion) and motion.frames[row] == wanted.frame
                    mesh.visible = bool(visible and there)
                    if visible and there:
                        mesh.vertices = vertices(motion, self.body, slice(row, row + 1))[0]
            if self.screen is not None:
                self.screen.visible = wanted.picture
                if wanted.picture and (moved or before is None or not before.picture):
                    self.screen.image = self._picture(wanted.frame)

    def _furnish(self) -> None:
        """The screen, the lines of sight of its corners, and one mesh a person."""
        scene = self.server.scene
        scene.set_up_direction("-y")
        scene.world_axes.visible = False
        # Lit from the camera's side; the presets fetch a panorama from the network.
        scene.configure_environment_map(None)
        scene.configure_default_lights(cast_shadow=False)
        scene.add_light_ambient("/light/around", intensity=1.2)
        scene.add_light_directional("/light/key", intensity=2.0, position=(-2.0, -4.0, -3.0))
        width, height = self.size
        depths = np.concatenate([motion.joints3d[..., 2].max(axis=1) for motion in self.motions])
        self.depth = float(depths.max()) + BEHIND
        corner = np.array([width / 2 / self.focal, height / 2 / self.focal, 1.0]) * self.depth
        corners = corner * np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
        edges = [(np.zeros(3), each) for each in corners] + list(zip(corners, np.roll(corners, 1, axis=0), strict=True))
        scene.add_line_segments("/camera", np.array(edges, np.float32), colors=(150, 150, 150))
        self.screen = None
        if self.video is not None:
            self.screen = scene.add_image(
                "/screen",
                self._picture(self.first),
                render_width=2 * float(corner[0]),
                render_height=2 * float(corner[1]),
                position=(0.0, 0.0, self.depth),
                cast_shadow=False,
                receive_shadow=False,
            )
        self.meshes: list[viser.MeshHandle] = []
        for number, motion in enumerate(self.motions):
            self.meshes.append(
                scene.add_mesh_simple(
                    f"/person/{number}",
                    vertices(motion, self.body, slice(0, 1))[0],
                    self.body.faces,
                    color=COLOURS[number % len(COLOURS)],
                    visible=False,
                )
            )

    def _add_controls(self) -> None:
        gui = self.server.gui
        gui.configure_theme(control_width="small", show_logo=False, show_share_button=False)
        last = max(self.last, self.first + 1)  # a slider needs two ends
        self.slider = gui.add_slider("frame", min=self.first, max=last, step=1, initial_value=self.first)
        self.play = gui.add_checkbox("play", False)
        self.speed = gui.add_dropdown("speed", [str(rate) for rate in FRAME_RATES], initial_value="1.0")
        self.picture = gui.add_checkbox("picture", True, visible=self.video is not None)
        views = gui.add_button_group("look", ["as filmed", "from the side"])
        self.people = [
            gui.add_checkbox(f"person {motion.person}", True, hint=f"{len(motion)} frames") for motion in self.motions
        ]
        views.on_click(self._look)

    def _look(self, event: "viser.GuiEvent") -> None:
        if event.client is not None:
            (self._as_filmed if event.target.value == "as filmed" else self._from_the_side)(event.client)

    def _as_filmed(self, client: "viser.ClientHandle") -> None:
        """Through the camera, with a little room around the picture."""
        width, height = self.size
        tall, wide = height / 2 / self.focal, width / 2 / self.focal
        camera = client.camera
        with client.atomic():
            camera.up_direction = (0.0, -1.0, 0.0)
            camera.fov = 2 * float(np.arctan(1.05 * max(tall, wide / max(camera.aspect, 0.1))))
            camera.position = (0.0, 0.0, 0.0)
            camera.look_at = (0.0, 0.0, float(self._middle()[2]))

    def _from_the_side(self, client: "viser.ClientHandle") -> None:
        """From the camera's right, about as far from the people as it is; the mouse turns the scene about them."""
        middle = self._middle()
        with client.atomic():
            client.camera.up_direction = (0.0, -1.0, 0.0)
            client.camera.position = tuple(middle + np.array([0.9, -0.2, -0.6]) * middle[2])
            client.camera.look_at = tuple(middle)

    def _middle(self) -> NDArray[np.float32]:
        """(3,) m, the middle of those who are in sight, or of everybody at their first."""
        frame = int(self.slider.value)
        pelvises = [motion.joints3d[motion.frames == frame, 0] for motion in self.motions]
        seen = np.concatenate(pelvises)
        return (seen if len(seen) else np.stack([motion.joints3d[0, 0] for motion in self.motions])).mean(axis=0)

    def _picture(self, frame: int) -> NDArray[np.uint8]:
        """(h, w, 3) RGB of the video; grey where it cannot be read."""
        width, height = self.size
        assert self.video is not None
        try:
            picture = self.video.read(frame)
        except Unreadable:
            return np.full((height // 8, width // 8, 3), 128, np.uint8)
        if picture.shape[1] > SCREEN_WIDTH:
            size = (SCREEN_WIDTH, round(height * SCREEN_WIDTH / width))
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        return np.ascontiguousarray(picture[..., ::-1])


def read_motions(results: Path) -> list[Motion]:
    """The motions in a file or a folder, each person once (.npz before .parquet); InputError if they are not of one
    video."""
    if not results.exists():
        raise InputError(f"{results}: there is no such file or folder; python -m glot.predict makes one")
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
        raise InputError(f"{results}: holds people of videos of several sizes; view those of one video at a time")
    return motions


def open_video(path: Path, motion: Motion) -> SeekableVideo:
    """The video that the motion was seen in; InputError if it cannot be."""
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


def main(
    results: Annotated[Path, typer.Argument(help="Folder of one video's results, or one person's .npz or .parquet.")],
    video: Annotated[Path | None, typer.Option(help="The video; only the bodies are shown when left out.")] = None,
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in the network see the page, too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page; the next free one if it is taken.")] = 8080,
) -> None:
    """Look at bodies and their video in a browser: play, go to a frame, show people one by one, turn around them.

    The page opens as the camera saw it, each body over its person; the mouse turns the scene. Only the frame that is
    shown is computed, so long videos open at once. Ctrl-C ends it.

    Example: `python -m glot.view runs/walk --video walk.mp4`
    """
    if find_spec("viser") is None:
        raise InputError("the viewer needs viser, which is not installed; pip install 'viser>=1.1'")
    motions = read_motions(results)
    film = open_video(video, motions[0]) if video else None
    viewer = Viewer(motions, load_body(body), film, host=host, port=port)
    people = "1 person" if len(motions) == 1 else f"{len(motions)} people"
    print(f"{people}, frames {viewer.first} to {viewer.last}: open {viewer.url} (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):
        viewer.run()
    viewer.close()
