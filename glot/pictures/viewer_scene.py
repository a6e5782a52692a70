"""Motions of a video's people and the video in; their bodies and the picture of one frame in viser's 3D scene out.

Everything is in the camera's frame (x right, y down, z forward, metres): bodies where their motions place them, and
the picture on a screen behind them. The screen is so large that, from the camera, each body covers its person.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.human.body import Body
from glot.motion.person_motion import Motion, vertices
from glot.people.seeking import SeekableVideo
from glot.people.video import Unreadable

if TYPE_CHECKING:
    import viser

COLOURS = (  # RGB, one person after the other
    (115, 158, 230), (236, 160, 90), (120, 190, 120), (214, 112, 128), (160, 130, 210), (110, 190, 200), (205, 185, 90),
)  # fmt: skip
SCREEN_WIDTH = 960  # px, largest width of the picture that is sent to the browser
BEHIND = 0.8  # metres from the person farthest away to the screen
# Share of the way to the screen at which the drawn rays of its corners start. A line that starts at the camera covers
# the whole view as filmed with some renderers; one that starts close to it has a thick end.
RAY_START = 0.4
MARGIN = 1.05  # the view as filmed is this many times as wide as the picture


class BodyScene:
    """One mesh for each person, and a screen if there is a video. A body is posed only when it is shown."""

    def __init__(self, scene: "viser.SceneApi", motions: list[Motion], body: Body, video: SeekableVideo | None) -> None:
        self.motions, self.body, self.video = motions, body, video
        first_motion = motions[0]
        self.size, self.focal = (first_motion.width, first_motion.height), first_motion.focal
        depths = np.concatenate([motion.joints3d[..., 2].max(axis=1) for motion in motions])
        self.depth = float(depths.max()) + BEHIND  # depth of the screen, m
        first = min(int(motion.frames[0]) for motion in motions)
        _add_light(scene)
        self.screen = self._add_screen(scene, first)
        self.meshes = [
            scene.add_mesh_simple(
                f"/person/{number}",
                vertices(motion, body, slice(0, 1))[0],
                body.faces,
                color=COLOURS[number % len(COLOURS)],
                visible=False,
            )
            for number, motion in enumerate(motions)
        ]

    def show_bodies(self, frame: int, people: tuple[bool, ...]) -> None:
        """Poses the bodies of ``frame``; hides people who are not in it, or False in ``people``."""
        for motion, mesh, wanted in zip(self.motions, self.meshes, people, strict=True):
            row = int(np.searchsorted(motion.frames, frame))
            present = row < len(motion) and motion.frames[row] == frame
            mesh.visible = bool(wanted and present)
            if wanted and present:
                mesh.vertices = vertices(motion, self.body, slice(row, row + 1))[0]

    def show_picture(self, frame: int) -> None:
        """Puts the picture of ``frame`` on the screen."""
        assert self.screen is not None
        self.screen.image = self._picture(frame)

    def as_filmed(self, camera: "viser.CameraHandle", frame: int) -> None:
        """Looks through the video's camera, with a small margin around the picture."""
        width, height = self.size
        tall, wide = height / 2 / self.focal, width / 2 / self.focal
        camera.up_direction = (0.0, -1.0, 0.0)
        camera.fov = 2 * float(np.arctan(MARGIN * max(tall, wide / max(camera.aspect, 0.1))))
        camera.position = (0.0, 0.0, 0.0)
        camera.look_at = (0.0, 0.0, float(self._middle(frame)[2]))

    def from_the_side(self, camera: "viser.CameraHandle", frame: int) -> None:
        """Looks from the video camera's right, about as far from the people as that camera is."""
        middle = self._middle(frame)
        camera.up_direction = (0.0, -1.0, 0.0)
        camera.position = tuple(middle + np.array([0.9, -0.2, -0.6]) * middle[2])
        camera.look_at = tuple(middle)

    def _add_screen(self, scene: "viser.SceneApi", first: int) -> "viser.ImageHandle | None":
        """The screen with the picture of frame ``first``, if there is a video; and the lines to its corners."""
        width, height = self.size
        corner = np.array([width / 2 / self.focal, height / 2 / self.focal, 1.0]) * self.depth
        corners = corner * np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
        rays = [(RAY_START * each, each) for each in corners]
        edges = rays + list(zip(corners, np.roll(corners, 1, axis=0), strict=True))
        scene.add_line_segments("/camera", np.array(edges, np.float32), colors=(150, 150, 150))
        if self.video is None:
            return None
        return scene.add_image(
            "/screen",
            self._picture(first),
            render_width=2 * float(corner[0]),
            render_height=2 * float(corner[1]),
            position=(0.0, 0.0, self.depth),
            cast_shadow=False,
            receive_shadow=False,
        )

    def _middle(self, frame: int) -> NDArray[np.float32]:
        """(3,) m, the mean pelvis of the people in ``frame``; without any, of all people in their first frames."""
        present = np.concatenate([motion.joints3d[motion.frames == frame, 0] for motion in self.motions])
        return (present if len(present) else np.stack([motion.joints3d[0, 0] for motion in self.motions])).mean(axis=0)

    def _picture(self, frame: int) -> NDArray[np.uint8]:
        """(h, w, 3) RGB, the video's picture of ``frame``; grey if it cannot be read."""
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


def _add_light(scene: "viser.SceneApi") -> None:
    """Light from the camera's side. viser's presets are not used: they fetch a panorama from the network."""
    scene.set_up_direction("-y")
    scene.world_axes.visible = False
    scene.configure_environment_map(None)
    scene.configure_default_lights(cast_shadow=False)
    scene.add_light_ambient("/light/around", intensity=1.2)
    scene.add_light_directional("/light/key", intensity=2.0, position=(-2.0, -4.0, -3.0))
