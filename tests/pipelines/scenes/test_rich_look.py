"""The look "rich": its labels fit the pictures, its seeds decide everything, and plain pictures are as before."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from glot.human.body import Body, load_body
from glot.pictures.surroundings import Light
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import MotionClip
from pipelines.motions.random_motion import random_chain
from pipelines.scenes import filming, rich_filming
from pipelines.scenes.camera_paths import random_camera, random_rich_camera
from pipelines.scenes.posed_person import PosedPerson, pose_person
from pipelines.scenes.rich_backgrounds import natural_colour, rich_surroundings
from pipelines.scenes.rich_people import lit_colours, random_outfit
from pipelines.scenes.rich_sensor import random_rich_sensor

SIZE = 160
EARLIER = [  # made when there was only one look
    [84.1, 70.7, 106.5, 76.4, 68.0, 81.8, 95.9, 90.7, 126.0, 96.4, 91.2, 127.2],
    [75.6, 76.7, 79.2, 70.2, 69.9, 71.8, 88.0, 70.2, 51.2, 97.3, 79.0, 58.3],
    [107.2, 110.3, 99.8, 109.0, 112.7, 105.8, 177.0, 188.5, 193.4, 168.3, 182.5, 187.4],
]


@pytest.fixture(scope="module")
def motions() -> dict[str, MotionClip]:
    return load_motions()


@pytest.fixture(scope="module")
def body() -> Body:
    torch.set_num_threads(1)
    return load_body()


def person_of(rng: np.random.Generator, motions: dict[str, MotionClip], body: Body, *, frames: int) -> PosedPerson:
    motion = random_chain(rng, motions, first="dance_b", frames=frames)
    return filming.clothed_person(rng, motion, body=body, look="rich")


def pictures(look: str, seed: int, motions: dict[str, MotionClip], body: Body) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cv2.setNumThreads(1)
    person = filming.clothed_person(rng, random_chain(rng, motions, first="kick", frames=3), body=body, look=look)
    camera = filming.camera_of(look)(rng, [person], size=SIZE, fill=(0.5, 0.8), move="follow")
    films = filming.render_people(rng, [person], camera, size=SIZE, body=body, look=look)
    return np.stack([image for image, _ in films])


@pytest.mark.parametrize("look", ["plain", "rich"])
def test_the_same_seed_makes_the_same_pictures(look: str, motions: dict[str, MotionClip], body: Body) -> None:
    first = pictures(look, 3, motions, body)
    np.testing.assert_array_equal(first, pictures(look, 3, motions, body))
    assert first.shape == (3, SIZE, SIZE, 3) and first.dtype == np.uint8
    assert np.abs(first.astype(int) - pictures(look, 4, motions, body)).mean() > 5


def test_plain_pictures_are_what_they_were_before_there_were_looks(motions: dict[str, MotionClip], body: Body) -> None:
    """Mean brightness of quarters of pictures; other versions of libraries may change single pixels."""
    means = []
    for seed in (1, 2, 3):
        render = filming.random_render(np.random.default_rng(seed), body=body, clips=motions, size=96)
        means.append(render.image.reshape(2, 48, 2, 48, 3).mean((1, 3)).ravel())
    np.testing.assert_allclose(means, EARLIER, atol=0.5)


def test_joints_fall_on_the_dressed_person(motions: dict[str, MotionClip], body: Body) -> None:
    rng = np.random.default_rng(6)
    hits: list[int] = []
    for _ in range(10):
        person = person_of(rng, motions, body, frames=3)
        camera = random_rich_camera(rng, [person], size=SIZE, fill=(0.6, 0.8), move="follow")
        for frame, shot in enumerate(rich_filming.film_richly(rng, [person], camera, size=SIZE, body=body)):
            pixels, visibility = filming.joint_visibility(person.joints[frame], 0, shot.snapshot, shot.scene)
            near = cv2.dilate((shot.snapshot.labels == 0).astype(np.uint8), np.ones((3, 3), np.uint8))
            at = np.round(pixels[visibility == filming.VISIBLE]).astype(int)
            hits += near[at[:, 1], at[:, 0]].tolist()
    assert len(hits) > 400 and np.mean(hits) > 0.97


def test_clothes_move_the_skin_outwards_and_leave_the_joints(motions: dict[str, MotionClip], body: Body) -> None:
    rng = np.random.default_rng(2)
    bare = pose_person(body, random_chain(rng, motions, first="kick", frames=2), betas=np.zeros(10, np.float32),
                       colours=np.zeros((len(body.template), 3), np.float32))  # fmt: skip
    thickest = 0.0
    for _ in range(12):
        outfit = random_outfit(rng, body)
        assert outfit.colours.min() >= 0 and outfit.colours.max() <= 1 and outfit.thickness.min() >= 0
        worn = rich_filming.cloth_of(body).wear(bare, outfit)
        np.testing.assert_array_equal(worn.joints, bare.joints)
        moved = np.linalg.norm(worn.vertices - bare.vertices, axis=-1)
        assert moved[:, outfit.thickness + outfit.loose == 0].max() < 1e-6  # hands and faces
        assert moved.max() < 0.1
        covered = outfit.loose > 0.5
        thickest = max(thickest, float(moved[0, covered].mean()))
    assert thickest > 0.015


def test_bodies_hide_the_light_from_each_other(body: Body) -> None:
    cloth, white = rich_filming.cloth_of(body), np.ones((len(body.template), 3), np.float32)
    below = body.template.numpy()
    above = below + [0, 3.0, 0]
    light = Light(direction=(0, 1, 0))
    alone = lit_colours(cloth, light, [below], [white])[0]
    shaded = lit_colours(cloth, light, [below, above], [white, white])
    up = cloth.normals(below)[:, 1] > 0.7  # the shoulders, the head
    assert shaded[0][up].mean() < 0.85 * alone[up].mean()
    np.testing.assert_allclose(shaded[1][up].mean(), alone[up].mean(), atol=0.02)
    assert alone.max() <= 1 and alone.min() >= 0


def test_a_camera_on_a_tripod_does_not_move_and_lenses_differ(motions: dict[str, MotionClip], body: Body) -> None:
    rng = np.random.default_rng(0)
    person = person_of(rng, motions, body, frames=40)
    standing, focal = 0, []
    for _ in range(60):
        camera = random_rich_camera(rng, [person], size=SIZE, fill=(0.5, 0.8))
        focal.append(camera.intrinsics[0, 0] / SIZE)
        standing += np.ptp(camera.world_to_camera, axis=0).max() < 1e-9
        np.testing.assert_allclose(np.linalg.det(camera.world_to_camera[:, :3, :3]), 1, atol=1e-6)
    assert standing >= 3 and min(focal) < 0.9 and max(focal) > 1.9
    still = random_camera(rng, [person], size=SIZE, fill=(0.5, 0.8), move="still", shaking=0)
    assert np.ptp(still.world_to_camera, axis=0).max() < 1e-9


def test_what_moves_is_blurred_where_the_shutter_is_open_for_long(motions: dict[str, MotionClip], body: Body) -> None:
    rng = np.random.default_rng(1)
    person = person_of(rng, motions, body, frames=5)
    camera = random_camera(rng, [person], size=SIZE, fill=(0.7, 0.8), move="still", shaking=0)
    moments: Callable[..., list[float]] = rich_filming._moments
    assert moments([person], camera, 2, shutter=0.0) == [2.0]
    still = PosedPerson(*(np.repeat(getattr(person, n)[:1], 5, axis=0) if n not in ("betas", "colours") else
                          getattr(person, n) for n in person.__dataclass_fields__))  # fmt: skip
    assert moments([still], camera, 2, shutter=1.0) == [2.0]
    fast = still.moved(np.zeros(3, np.float32))
    fast.smpl_joints[:] += np.linspace(0, 2, 5)[:, None, None].astype(np.float32) * [1, 0, 1]
    times = moments([fast], camera, 2, shutter=1.0)
    assert len(times) == 3 and times[-1] == 2 and 1.5 < times[0] < 2 < times[1] < 2.5


def test_backgrounds_and_sensors_have_the_right_form() -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        around = rich_surroundings(rng)
        for texture in (around.floor, around.panorama):
            assert texture.dtype == np.uint8 and texture.shape[2] == 3 and texture.std() > 1
        grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
        shot = random_rich_sensor(rng, size=SIZE).expose(grey, rng)
        assert shot.shape == grey.shape and shot.dtype == np.uint8 and shot.flags.c_contiguous
    colours = np.stack([natural_colour(rng) for _ in range(300)])
    assert colours.min() >= 0 and colours.max() <= 255
    assert np.median(np.ptp(colours, axis=1)) < 60  # few are vivid
