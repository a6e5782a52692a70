"""People and a random generator in, pictures with exact annotations out: whole clips, or single ones to pretrain on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from glot.human.body import Body
from glot.human.joints import SPIN49, THREEDPW_2D
from glot.pictures.renderer import Scene, Snapshot
from pipelines.motions.mocap import PELVIS, Motion
from pipelines.scenes.actors import Person, place, random_betas, random_pose
from pipelines.scenes.appearance import (
    Film,
    add_obstacles,
    look_at,
    random_clothes,
    random_film,
    random_light,
    random_surroundings,
    sway,
)

MIN_DETECTED = 6  # 3DPW: a person-frame with fewer joints than this is all zeros
FACE = [i for i, name in enumerate(THREEDPW_2D) if name in ("nose", "reye", "leye", "rear", "lear")]
TO_18 = [SPIN49.index(name) for name in THREEDPW_2D]
ON_SURFACE = np.array([name.lower().endswith(("nose", "eye", "ear", "toe", "heel")) for name in SPIN49])


@dataclass(frozen=True)
class Camera:
    """``intrinsics`` (3, 3) pixels, ``world_to_camera`` (N, 4, 4)."""

    intrinsics: np.ndarray
    world_to_camera: np.ndarray

    @property
    def eyes(self) -> np.ndarray:
        """(N, 3) where the camera is, world."""
        turn, shift = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -np.einsum("nji,nj->ni", turn, shift)


HIGHEST = 2.6  # m, of a camera above the floor
WAYS = {"follow": 0.45, "pan": 0.25, "still": 0.15, "away": 0.15}  # how often the camera does what


def random_camera(
    rng: np.random.Generator,
    people: list[Person],
    *,
    size: int,
    fill: tuple[float, float],
    highest: float = HIGHEST,
    way: str | None = None,
) -> Camera:
    """A hand-held camera round the people, from any side: it goes along with them ("follow"), turns after them ("pan"),
    looks at one place ("still"), or turns aside for a while and loses them ("away"); ``way`` None draws one.

    ``fill`` is the range of a standing person's height in the picture, as a share of its height; ``highest`` is how far
    above the floor the camera may be, metres.
    """
    frames = len(people[0].trans)
    focal = size * rng.uniform(0.9, 1.7)
    centre = (size - 1) / 2 + rng.normal(0, size * 0.01, 2)
    intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    pelvis = np.stack([person.smpl_joints[:, PELVIS] for person in people])  # (P, N, 3)
    middle = gaussian_filter1d(pelvis.mean(0), 8, axis=0, mode="nearest")
    spread = np.linalg.norm(pelvis - middle, axis=-1).max() if len(people) > 1 else 0.0
    distance = max(1.7 * focal / size / rng.uniform(*fill) + 0.5 * spread, 1.6 + spread)
    kind = way or rng.choice(list(WAYS), p=list(WAYS.values()))
    anchor = middle if kind in ("follow", "away") else np.repeat(middle[frames // 2][None], frames, axis=0)
    turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, 1, frames) * frames / 30 * rng.normal(0, 0.35)
    eye = anchor + distance * np.stack([np.sin(turn), np.zeros(frames), np.cos(turn)], axis=1)
    eye[:, 1] = rng.uniform(0.35, highest) + np.linspace(0, 1, frames) * rng.normal(0, 0.25)
    target = (anchor if kind == "still" else middle) * [1, 0.7, 1] + [0, 0.25, 0]
    if kind == "away":  # looks aside for a while, far enough to lose everybody
        side = np.cross(target - eye, [0, 1, 0])
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        time = np.arange(frames) - rng.uniform(-0.1, 1.1) * frames
        pull = np.exp(-np.square(time / rng.uniform(8, 14))) * rng.choice([-1, 1])
        target = target + side * (pull * distance * size / focal * rng.uniform(1.0, 1.5))[:, None]
    eye = eye + sway(rng, frames, size=0.015)
    target = target + sway(rng, frames, size=0.012 * distance) + rng.normal(0, 0.03 * distance, 3)
    eye[:, 1] = np.maximum(eye[:, 1], 0.15)
    roll = sway(rng, frames, size=0.008)[:, 0] + rng.normal(0, 0.03)
    poses = [look_at(eye[i], target[i], roll=float(roll[i])) for i in range(frames)]
    return Camera(intrinsics, np.stack(poses))


def seen(joints: np.ndarray, index: int, shot: Snapshot, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """joints (49, 3), world, of the person with label ``index`` -> pixels (49, 2) and how each is seen (49,).

    2 visible, 1 hidden behind somebody, something or the own body, 0 outside the picture.
    """
    pixels, depth = scene.project(joints)
    nearest = np.round(pixels).astype(np.int64)
    inside = (depth > 0.1) & (nearest >= 0).all(1) & (nearest < [scene.width, scene.height]).all(1)
    x, y = np.where(inside[:, None], nearest, 0).T
    in_front = depth - shot.depth[y, x]  # metres between the surface one sees there and the joint
    # Joints lie inside the body: only what is nearer than the own flesh can be hides them.
    allowed = np.where(shot.labels[y, x] == index, np.where(ON_SURFACE, 0.06, 0.2), 0.03)
    return pixels, np.where(inside, np.where(in_front > allowed, 1, 2), 0)


def detect(pixels: np.ndarray, sight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a 2D detector would say of (49, 2) pixels: (3, 18) x, y, confidence, as 3DPW stores it; zeros for nobody."""
    pixels, sight = pixels[TO_18], sight[TO_18]
    height = np.ptp(pixels[:, 1])
    visible = sight == 2
    noise = rng.standard_normal((18, 2)) * np.clip(0.004 * height, 0.8, 2.0)
    guess, lucky = rng.uniform(0.1, 0.5, 18), rng.random(18) < 0.6
    confidence = np.where(visible, rng.uniform(0.55, 0.95, 18), guess * lucky * (sight == 1))
    confidence[FACE] *= visible[FACE]
    found = confidence > 0
    if found.sum() < MIN_DETECTED or visible.sum() < 3:
        return np.zeros((3, 18))
    points = pixels + noise * np.where(visible, 1, 2)[:, None]
    return np.concatenate([points, confidence[:, None]], axis=1).T * found


def stage(
    rng: np.random.Generator, people: list[Person], camera: Camera, *, size: int, body: Body
) -> tuple[Scene, Film]:
    """The set: surroundings, light, obstacles, and the people as meshes 0 ... P-1."""
    scene = Scene(size, size)
    scene.light, scene.surroundings = random_light(rng), random_surroundings(rng)
    for index, person in enumerate(people):
        scene.set_mesh(f"person{index}", person.vertices[0], body.faces, colours=person.colours)
    tracks = np.concatenate([person.smpl_joints[:, PELVIS] for person in people])
    add_obstacles(scene, rng, people=tracks, eyes=camera.eyes)
    return scene, random_film(rng)


def film(
    rng: np.random.Generator, people: list[Person], camera: Camera, *, size: int, body: Body
) -> Iterator[tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]]:
    """Yields for each frame the picture (size, size, 3) uint8 and, for each person, what ``seen`` says of it."""
    scene, sensor = stage(rng, people, camera, size=size, body=body)
    for frame, world_to_camera in enumerate(camera.world_to_camera):
        scene.set_camera(camera.intrinsics, world_to_camera)
        for index, person in enumerate(people):
            scene.update_mesh(f"person{index}", person.vertices[frame])
        shot = scene.snapshot()
        sights = [seen(person.joints[frame], index, shot, scene) for index, person in enumerate(people)]
        yield sensor.expose(shot.image, rng), sights


@dataclass(frozen=True)
class Picture:
    """One rendered person: ``image`` (size, size, 3) uint8 RGB, ``keypoints2d`` (49, 3) px and 1 where visible,
    ``joints3d`` (49, 3) m and ``pose`` (24, 3) rad in the camera frame, ``betas`` (10,), ``intrinsics`` (3, 3)."""

    image: np.ndarray
    keypoints2d: np.ndarray
    joints3d: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    intrinsics: np.ndarray


def random_image(
    rng: np.random.Generator,
    *,
    body: Body,
    motions: dict[str, Motion],
    size: int = 256,
    fill: tuple[float, float] = (0.5, 0.95),
    company: float = 0.15,
) -> Picture:
    """A random pose, body, camera, light, background and obstacle; a second person with probability ``company``.

    The first person is the annotated one. Fully determined by the state of ``rng``.
    """
    people: list[Person] = []
    for _ in range(1 + (rng.random() < company)):
        motion = random_pose(rng, motions)
        if people:
            angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
            shift = np.array([np.sin(angle) * away, 0, np.cos(angle) * away], dtype=np.float32)
            motion = Motion(motion.poses, motion.trans + shift, motion.fps)
        people.append(place(body, motion, betas=random_betas(rng), colours=random_clothes(rng, body)))
    first = people[0]
    camera = random_camera(rng, [first], size=size, fill=fill, way="follow")
    image, sights = next(film(rng, people, camera, size=size, body=body))
    pixels, sight = sights[0]
    turn, shift = camera.world_to_camera[0, :3, :3], camera.world_to_camera[0, :3, 3]
    pose = first.poses[0].copy()
    pose[PELVIS] = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[PELVIS])).as_rotvec()
    joints3d = first.joints[0] @ turn.T + shift
    keypoints2d = np.concatenate([pixels, (sight == 2)[:, None]], axis=1).astype(np.float32)
    return Picture(image, keypoints2d, joints3d.astype(np.float32), pose, first.betas, camera.intrinsics)
