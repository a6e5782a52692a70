"""Posed people and a camera in, pictures of the look "rich" out: dressed people among things, blurred as they move."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from glot.human.body import Body
from glot.pictures.renderer import Scene, Snapshot
from pipelines.motions.motion_clip import PELVIS
from pipelines.scenes.camera_paths import CameraPath
from pipelines.scenes.posed_person import PosedPerson
from pipelines.scenes.rich_backgrounds import rich_surroundings
from pipelines.scenes.rich_objects import add_rich_objects, random_rich_light
from pipelines.scenes.rich_people import Cloth, lit_colours, random_outfit
from pipelines.scenes.rich_sensor import random_rich_sensor

MOMENTS = 3  # pictures whose average is a blurred one; odd
LEAST, MOST = 2.0, 10.0  # px, lengths of traces: shorter ones are not made, and longer ones would show their MOMENTS


class Shot(NamedTuple):
    """A scene as it was when the picture was taken, what the camera saw, and the picture (H, W, 3) uint8 RGB."""

    scene: Scene
    snapshot: Snapshot
    image: np.ndarray


@lru_cache(maxsize=2)
def cloth_of(body: Body) -> Cloth:
    return Cloth(body.faces, len(body.template))


def dressed(rng: np.random.Generator, person: PosedPerson, body: Body) -> PosedPerson:
    """The person in a random outfit."""
    return cloth_of(body).wear(person, random_outfit(rng, body))


def film_richly(
    rng: np.random.Generator, people: list[PosedPerson], camera: CameraPath, *, size: int, body: Body
) -> Iterator[Shot]:
    """Yields the shot of each frame. People are the meshes 0 ... P-1 of the scene."""
    scene, sensor, cloth = Scene(size, size), random_rich_sensor(rng, size=size), cloth_of(body)
    scene.light, scene.surroundings = random_rich_light(rng), rich_surroundings(rng)
    for index, person in enumerate(people):
        scene.set_mesh(f"person{index}", person.vertices[0], body.faces, colours=person.colours)
    tracks = np.concatenate([person.smpl_joints[:, PELVIS] for person in people])
    add_rich_objects(scene, rng, people=tracks, eyes=camera.eyes)

    def take(time: float) -> Snapshot:
        """What the camera sees at ``time``, in frames."""
        scene.set_camera(camera.intrinsics, _rigid(_at(camera.world_to_camera, time)))
        bodies = [_at(person.vertices, time) for person in people]
        colours = lit_colours(cloth, scene.light, bodies, [person.colours for person in people])
        for index, vertices in enumerate(bodies):
            scene.update_mesh(f"person{index}", vertices, colours=colours[index])
        return scene.snapshot()

    frames = len(camera.world_to_camera)
    for frame in range(frames):
        total = np.zeros((size, size, 3), np.float32)
        moments = _moments(people, camera, frame, shutter=sensor.shutter)
        for time in moments:  # the last one is the frame's own
            snapshot = take(time)
            total += _smooth_edges(snapshot)
        yield Shot(scene, snapshot, sensor.expose(cv2.convertScaleAbs(total / len(moments)), rng))


def _moments(people: list[PosedPerson], camera: CameraPath, frame: int, *, shutter: float) -> list[float]:
    """The times, in frames, at which pictures are taken for one frame, its own last."""
    last = len(camera.world_to_camera) - 1
    if not shutter or not last:
        return [float(frame)]
    before, after = max(frame - 1, 0), min(frame + 1, last)
    steps = [np.ptp(person.smpl_joints[[before, after]], axis=0).max() for person in people]
    turn = np.abs(camera.world_to_camera[after, :3, :3] - camera.world_to_camera[before, :3, :3]).max()
    distance = np.linalg.norm(people[0].smpl_joints[frame, PELVIS] - camera.eyes[frame])
    trace = shutter / 2 * (max(steps) / distance + turn) * camera.intrinsics[0, 0]
    if trace < LEAST:
        return [float(frame)]
    open_for = 0.67 * shutter * min(1.0, MOST / trace)
    return [
        *np.clip(np.linspace(frame - open_for / 2, frame + open_for / 2, MOMENTS - 1), 0, last).tolist(),
        float(frame),
    ]


def _at(values: np.ndarray, time: float) -> np.ndarray:
    """The values (N, ...) at a time between two frames."""
    low = min(int(time), len(values) - 1)
    high, share = min(low + 1, len(values) - 1), time - low
    return values[low] if share == 0 else ((1 - share) * values[low] + share * values[high]).astype(values.dtype)


def _rigid(matrix: np.ndarray) -> np.ndarray:
    """The rigid transform next to a matrix (4, 4) between two of them."""
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rigid = matrix.copy()
    rigid[:3, :3] = left @ right
    return rigid


def _smooth_edges(snapshot: Snapshot) -> np.ndarray:
    """The picture, blurred by a pixel along the edges of meshes, which have steps otherwise."""
    labels = snapshot.labels
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    near = cv2.dilate(edge, np.ones((2, 2), np.uint8), anchor=(1, 1)).astype(bool)
    image = snapshot.image.copy()
    image[near] = cv2.GaussianBlur(snapshot.image, (3, 3), 0.8)[near]
    return image
