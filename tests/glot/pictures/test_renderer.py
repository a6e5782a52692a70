"""Pictures agree with the OpenCV camera to the pixel, and nearer things hide farther ones."""

import numpy as np
import pytest

from glot.pictures.renderer import Scene
from glot.pictures.surroundings import Light, Surroundings

CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
CUBE_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                       [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
K = np.array([[300.0, 0, 130.0], [0, 310.0, 90.0], [0, 0, 1]])


def sphere(rings: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere; its faces are counter-clockwise seen from outside."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings)[:-1], indexing="ij")
    vertices = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], axis=-1).reshape(
        -1, 3
    )
    around = 2 * rings - 1
    i, k = (a.ravel() for a in np.meshgrid(np.arange(rings - 1), np.arange(around), indexing="ij"))
    a, b = i * around + k, i * around + (k + 1) % around
    return vertices, np.concatenate([np.stack([a, a + around, b + around], 1), np.stack([a, b + around, b], 1)])


def camera(*, back: float = 4.0, yaw: float = 0.0) -> np.ndarray:
    """A camera at +z that looks at the origin along -z: x right, y down, z forward."""
    turn = np.diag([1.0, -1.0, -1.0]) @ np.array(
        [[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]]
    )
    pose = np.eye(4)
    pose[:3, :3], pose[2, 3] = turn, back
    return pose


def test_the_silhouette_is_where_the_camera_puts_the_vertices() -> None:
    vertices, faces = sphere()
    vertices = vertices * [0.3, 0.5, 0.4] + [0.2, 0.1, 0]
    for supersample in (1, 2):
        scene = Scene(260, 180, supersample=supersample)
        scene.set_mesh("egg", vertices, faces, colours=np.ones(3))
        scene.set_camera(K, camera(yaw=0.5))
        rows, columns = np.nonzero(scene.render_mask() >= 0.5)
        local = vertices @ camera(yaw=0.5)[:3, :3].T + camera(yaw=0.5)[:3, 3]
        pixels = (local / local[:, 2:]) @ K.T
        for found, wanted in ((columns, pixels[:, 0]), (rows, pixels[:, 1])):
            assert abs(found.min() - wanted.min()) < 1 and abs(found.max() - wanted.max()) < 1
        np.testing.assert_allclose(scene.project(vertices)[0], pixels[:, :2], atol=1e-9)


def test_a_square_covers_exactly_its_pixel_centres() -> None:
    scene = Scene(40, 30)
    # At depth 1, this camera makes world x, -y pixels. The corners are half way between pixel centres.
    scene.set_camera(np.eye(3), np.diag([1.0, -1.0, -1.0, 1.0]))
    corners = np.array([[9.5, -4.5, -1], [20.5, -4.5, -1], [20.5, -15.5, -1], [9.5, -15.5, -1]])
    scene.set_mesh("square", corners, np.array([[0, 2, 1], [0, 3, 2]]), colours=np.ones(3))
    expected = np.zeros((30, 40), dtype=np.float32)
    expected[5:16, 10:21] = 1
    np.testing.assert_array_equal(scene.render_mask(), expected)
    scene.set_mesh("square", corners, np.array([[0, 1, 2], [0, 2, 3]]), colours=np.ones(3))
    assert scene.render_mask().sum() == 0  # seen from behind


def test_the_nearer_mesh_is_drawn_in_either_order() -> None:
    for names in (("near", "far"), ("far", "near")):
        scene = Scene(120, 120)
        scene.set_camera(np.array([[100.0, 0, 60], [0, 100, 60], [0, 0, 1]]), camera(back=5))
        for name in names:
            shift = [0, 0, 1.0] if name == "near" else [0.4, 0, -1.0]
            scene.set_mesh(name, CUBE + shift, CUBE_FACES, colours=np.ones(3))
        shot = scene.snapshot()
        near = names.index("near")
        assert shot.labels[60, 60] == near and np.isclose(shot.depth[60, 60], 3.5, atol=1e-4)
        assert (shot.labels == 1 - near).any() and np.isinf(shot.depth[shot.labels < 0]).all()


def test_depth_is_perspective_correct() -> None:
    """A slanted plane: 1/depth is affine in the picture, depth is not."""
    scene = Scene(100, 100)
    scene.set_camera(np.array([[80.0, 0, 50], [0, 80, 50], [0, 0, 1]]), np.diag([1.0, -1.0, -1.0, 1.0]))
    plane = np.array([[-3, -3, -2.0], [3, -3, -6.0], [3, 3, -6.0], [-3, 3, -2.0]])
    scene.set_mesh("plane", plane, np.array([[0, 1, 2], [0, 2, 3]]), colours=np.ones(3))
    depth = scene.snapshot().depth[50]
    seen = np.isfinite(depth)
    u = (np.arange(100)[seen] - 50) / 80
    # The plane is z = 4 + 2x/3 in the camera frame, with x = u z.
    np.testing.assert_allclose(depth[seen], 4 / (1 - 2 * u / 3), rtol=1e-4)


def test_shading_follows_the_light() -> None:
    vertices, faces = sphere(40)
    scene = Scene(101, 101)
    scene.set_camera(np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]]), camera())
    scene.set_mesh("ball", vertices, faces, colours=np.array([0.8, 0.4, 0.2]))
    scene.light = Light(direction=(1, 0.2, 0.5))
    image = scene.render().astype(float)
    assert image[50, 65].sum() > 1.5 * image[50, 35].sum()  # world +x is to the right
    red, green, blue = image[50, 60]
    assert red > green > blue


def test_moving_a_mesh_is_the_same_as_adding_it_there() -> None:
    vertices, faces = sphere(20)
    first, second = Scene(80, 80), Scene(80, 80)
    for scene in (first, second):
        scene.set_camera(np.array([[80.0, 0, 40], [0, 80, 40], [0, 0, 1]]), camera())
    first.set_mesh("a", vertices, faces, colours=np.ones(3))
    first.render()
    first.update_mesh("a", vertices * 0.5 + 0.3)
    second.set_mesh("a", vertices * 0.5 + 0.3, faces, colours=np.ones(3))
    np.testing.assert_array_equal(first.render(), second.render())
    first.remove_mesh("a")
    assert first.render_mask().sum() == 0


def test_overlays_leave_the_rest_of_the_picture_alone() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (90, 70, 3), dtype=np.uint8)
    scene = Scene(70, 90, supersample=2)
    scene.set_background(picture)
    np.testing.assert_array_equal(scene.render(), picture)
    vertices, faces = sphere(20)
    scene.set_camera(np.array([[60.0, 0, 35], [0, 60, 45], [0, 0, 1]]), camera())
    scene.set_mesh("ball", vertices, faces, colours=np.ones(3))
    mask = scene.render_mask()
    np.testing.assert_array_equal(scene.render()[mask == 0], picture[mask == 0])
    assert 0 < mask.mean() < 0.5 and ((mask > 0) & (mask < 1)).any()


def test_the_floor_lies_where_the_camera_sees_it() -> None:
    """A red disc painted on the floor at (1, 2) m shows where (1, 0, 2) projects to; the sky stays above it."""
    floor = np.full((400, 400, 3), 120, dtype=np.uint8)
    y, x = np.mgrid[:400, :400]
    metre = 400 / 20
    floor[np.hypot(x - 199.5 - 1 * metre, y - 199.5 - 2 * metre) < 6] = (255, 0, 0)
    panorama = np.full((90, 360, 3), (0, 0, 255), dtype=np.uint8)
    scene = Scene(200, 160)
    scene.surroundings = Surroundings(floor, panorama, floor_size=20, fade=1000)
    pose = camera(back=6)
    pose[1, 3] = 1.0  # the camera 1 m above the floor
    scene.set_camera(np.array([[180.0, 0, 100], [0, 180, 80], [0, 0, 1]]), pose)
    image = scene.render().astype(int)
    red = (image[..., 0] > 180) & (image[..., 1] < 90)
    rows, columns = np.nonzero(red)
    wanted = scene.project(np.array([1.0, 0, 2.0]))[0]
    assert np.hypot(columns.mean() - wanted[0], (rows.min() + rows.max()) / 2 - wanted[1]) < 1.5
    assert (image[:75, :, 2] > 200).all() and (image[100:, :, 2] < 200).all()  # horizon at row 80


def test_a_shadow_falls_away_from_the_light() -> None:
    scene = Scene(120, 120)
    scene.surroundings = Surroundings(
        np.full((64, 64, 3), 200, np.uint8), np.full((30, 90, 3), 200, np.uint8), fade=1000
    )
    scene.light = Light(direction=(1, 1, 0))
    pose = np.eye(4)
    pose[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # straight down from 6 m: world +x to the right
    pose[2, 3] = 6
    scene.set_camera(np.array([[100.0, 0, 60], [0, 100, 60], [0, 0, 1]]), pose)
    scene.set_mesh("box", CUBE + [0, 0.5, 0], CUBE_FACES, colours=np.ones(3))
    row = scene.render()[60].astype(int).sum(1)
    assert row[43] < 0.8 * row[77] and row[77] == row[5]


def test_panorama_turns_with_the_camera() -> None:
    """After a turn to the right, what was in the middle is left of it; after a full turn it is back."""
    panorama = np.zeros((90, 360, 3), dtype=np.uint8)
    panorama[:, 176:184] = 255
    scene = Scene(161, 40)
    scene.surroundings = Surroundings(np.zeros((8, 8, 3), np.uint8), panorama)
    centres = []
    for degrees in (0, 10, 20, 360):
        angle = np.deg2rad(degrees)
        right, forward = np.array([np.cos(angle), 0, np.sin(angle)]), np.array([np.sin(angle), 0, -np.cos(angle)])
        pose = np.eye(4)
        pose[:3, :3] = [right, [0, -1, 0], forward]
        scene.set_camera(np.array([[160.0, 0, 80], [0, 160, 20], [0, 0, 1]]), pose)
        columns = np.nonzero(scene.render()[5, :, 0] > 128)[0]
        centres.append(columns.mean())
    assert centres[0] == pytest.approx(80, abs=2) and centres[3] == pytest.approx(centres[0], abs=0.5)
    for turned, degrees in zip(centres[1:3], (10, 20), strict=True):
        assert turned == pytest.approx(80 - 160 * np.tan(np.deg2rad(degrees)), abs=3)
