"""Posed people and a random generator in, pictures with exact labels out: sequences, or renders for pretraining."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from glot.human.body import Body
from glot.human.joints import SPIN49, THREEDPW_2D
from glot.pictures.renderer import Scene, Snapshot
from pipelines.motions.motion_clip import PELVIS, MotionClip
from pipelines.motions.random_motion import random_pose
from pipelines.scenes.appearance import (
    Sensor,
    add_obstacles,
    random_clothes,
    random_light,
    random_sensor,
    random_surroundings,
)
from pipelines.scenes.camera_paths import CameraPath, camera_of
from pipelines.scenes.posed_person import PosedPerson, pose_person, random_betas
from pipelines.scenes.rich_filming import Shot, dressed, film_richly
from pipelines.scenes.spec import PLAIN, RICH

MIN_DETECTED = 6  # in 3DPW, a person with fewer detected joints in a frame has zeros in that frame
FACE = [i for i, name in enumerate(THREEDPW_2D) if name in ("nose", "reye", "leye", "rear", "lear")]
TO_18 = [SPIN49.index(name) for name in THREEDPW_2D]
ON_SURFACE = np.array([name.lower().endswith(("nose", "eye", "ear", "toe", "heel")) for name in SPIN49])
OUTSIDE, HIDDEN, VISIBLE = 0, 1, 2


def joint_visibility(joints: np.ndarray, index: int, snapshot: Snapshot, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """joints (49, 3), world, of the person with label ``index`` -> pixels (49, 2) and visibility (49,).

    A joint is VISIBLE, HIDDEN (behind a person, an object or the person's own body) or OUTSIDE the picture.
    """
    pixels, depth = scene.project(joints)
    nearest = np.round(pixels).astype(np.int64)
    inside = (depth > 0.1) & (nearest >= 0).all(1) & (nearest < [scene.width, scene.height]).all(1)
    x, y = np.where(inside[:, None], nearest, 0).T
    in_front = depth - snapshot.depth[y, x]  # metres from the visible surface at this pixel to the joint
    # Joints lie inside the body: the skin around a joint does not hide it, only nearer surfaces do.
    allowed = np.where(snapshot.labels[y, x] == index, np.where(ON_SURFACE, 0.06, 0.2), 0.03)
    return pixels, np.where(inside, np.where(in_front > allowed, HIDDEN, VISIBLE), OUTSIDE)


def imitate_detector(pixels: np.ndarray, visibility: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a 2D detector would find of joints (49, 2) px: (3, 18) x, y, confidence, as 3DPW stores them.

    All values are zero if the detector would not find the person.
    """
    pixels, visibility = pixels[TO_18], visibility[TO_18]
    height = np.ptp(pixels[:, 1])
    visible = visibility == VISIBLE
    noise = rng.standard_normal((18, 2)) * np.clip(0.004 * height, 0.8, 2.0)
    guess, lucky = rng.uniform(0.1, 0.5, 18), rng.random(18) < 0.6
    confidence = np.where(visible, rng.uniform(0.55, 0.95, 18), guess * lucky * (visibility == HIDDEN))
    confidence[FACE] *= visible[FACE]
    found = confidence > 0
    if found.sum() < MIN_DETECTED or visible.sum() < 3:
        return np.zeros((3, 18))
    points = pixels + noise * np.where(visible, 1, 2)[:, None]
    return np.concatenate([points, confidence[:, None]], axis=1).T * found


def set_up_scene(
    rng: np.random.Generator, people: list[PosedPerson], camera: CameraPath, *, size: int, body: Body
) -> tuple[Scene, Sensor]:
    """The scene with its surroundings, light, obstacles and the people as meshes 0 ... P-1; and the camera's sensor."""
    scene = Scene(size, size)
    scene.light, scene.surroundings = random_light(rng), random_surroundings(rng)
    for index, person in enumerate(people):
        scene.set_mesh(f"person{index}", person.vertices[0], body.faces, colours=person.colours)
    tracks = np.concatenate([person.smpl_joints[:, PELVIS] for person in people])
    add_obstacles(scene, rng, people=tracks, eyes=camera.eyes)
    return scene, random_sensor(rng)


def film_plainly(
    rng: np.random.Generator, people: list[PosedPerson], camera: CameraPath, *, size: int, body: Body
) -> Iterator[Shot]:
    """Yields the shot of each frame. People are the meshes 0 ... P-1 of the scene."""
    scene, sensor = set_up_scene(rng, people, camera, size=size, body=body)
    for frame, world_to_camera in enumerate(camera.world_to_camera):
        scene.set_camera(camera.intrinsics, world_to_camera)
        for index, person in enumerate(people):
            scene.update_mesh(f"person{index}", person.vertices[frame])
        snapshot = scene.snapshot()
        yield Shot(scene, snapshot, sensor.expose(snapshot.image, rng))


def render_people(
    rng: np.random.Generator,
    people: list[PosedPerson],
    camera: CameraPath,
    *,
    size: int,
    body: Body,
    look: str = PLAIN,
) -> Iterator[tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]]:
    """Yields for each frame the picture (size, size, 3) uint8 RGB and each person's result of ``joint_visibility``."""
    film = film_richly if look == RICH else film_plainly
    for frame, shot in enumerate(film(rng, people, camera, size=size, body=body)):
        joints = [joint_visibility(p.joints[frame], i, shot.snapshot, shot.scene) for i, p in enumerate(people)]
        yield shot.image, joints


def clothed_person(rng: np.random.Generator, clip: MotionClip, *, body: Body, look: str = PLAIN) -> PosedPerson:
    """A random body in random clothes, moved by every frame of ``clip``."""
    betas = random_betas(rng)
    if look == RICH:
        bare = np.zeros((len(body.template), 3), np.float32)
        return dressed(rng, pose_person(body, clip, betas=betas, colours=bare), body)
    return pose_person(body, clip, betas=betas, colours=random_clothes(rng, body))


@dataclass(frozen=True)
class Render:
    """A picture of one person with its labels: ``image`` (size, size, 3) uint8 RGB, ``keypoints2d`` (49, 3) px and 1
    where visible, ``joints3d`` (49, 3) m and ``pose`` (24, 3) rad in the camera frame, ``betas`` (10,), ``intrinsics``
    (3, 3)."""

    image: np.ndarray
    keypoints2d: np.ndarray
    joints3d: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    intrinsics: np.ndarray


def random_render(
    rng: np.random.Generator,
    *,
    body: Body,
    clips: dict[str, MotionClip],
    size: int = 256,
    fill: tuple[float, float] = (0.5, 0.95),
    company: float = 0.15,
    look: str = PLAIN,
) -> Render:
    """A random pose, body, camera, light, background and obstacle; a second person with probability ``company``.

    The labels describe the first person. The state of ``rng`` determines everything.
    """
    people: list[PosedPerson] = []
    for _ in range(1 + (rng.random() < company)):
        clip = random_pose(rng, clips)
        if people:
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
            shift = np.array([np.sin(angle) * distance, 0, np.cos(angle) * distance], dtype=np.float32)
            clip = MotionClip(clip.poses, clip.trans + shift, clip.fps)
        people.append(clothed_person(rng, clip, body=body, look=look))
    first = people[0]
    camera = camera_of(look)(rng, [first], size=size, fill=fill, move="follow")
    image, joints2d = next(render_people(rng, people, camera, size=size, body=body, look=look))
    pixels, visibility = joints2d[0]
    turn, shift = camera.world_to_camera[0, :3, :3], camera.world_to_camera[0, :3, 3]
    pose = first.poses[0].copy()
    pose[PELVIS] = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[PELVIS])).as_rotvec()
    joints3d = first.joints[0] @ turn.T + shift
    keypoints2d = np.concatenate([pixels, (visibility == VISIBLE)[:, None]], axis=1).astype(np.float32)
    return Render(image, keypoints2d, joints3d.astype(np.float32), pose, first.betas, camera.intrinsics)
