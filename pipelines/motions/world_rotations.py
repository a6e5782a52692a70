"""World rotations of SMPL's joints in, SMPL's local poses out; and turns between directions of bones."""

import numpy as np
from scipy.spatial.transform import Rotation

from glot.human.joints import SMPL_JOINTS, SMPL_PARENTS


def local_poses(world: dict[str, Rotation]) -> np.ndarray:
    """``world``: rotations of joints since SMPL's T-pose, N each -> poses (N, 72), axis-angle in radians, relative to
    the parents. A joint that is not in ``world`` turns with its parent."""
    world = dict(world)
    poses = np.zeros((len(world["pelvis"]), 24, 3))
    poses[:, 0] = world["pelvis"].as_rotvec()
    for index, name in enumerate(SMPL_JOINTS[1:], 1):
        above = world[SMPL_JOINTS[SMPL_PARENTS[index]]]
        poses[:, index] = (above.inv() * world.setdefault(name, above)).as_rotvec()
    return poses.reshape(-1, 72)


def half_way(first: Rotation, second: Rotation) -> Rotation:
    """The rotations in the middle between two, frame by frame."""
    return first * Rotation.from_rotvec(0.5 * (first.inv() * second).as_rotvec())


def shortest_turn(start: np.ndarray, end: np.ndarray) -> Rotation:
    """The smallest rotation from one direction to another."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    size = np.linalg.norm(axis)
    if size < 1e-9:
        if np.dot(start, end) > 0:
            return Rotation.identity()
        axis = np.cross(start, np.eye(3)[np.argmin(np.abs(start))])  # opposite directions: any perpendicular axis
        return Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.pi)
    return Rotation.from_rotvec(axis / size * np.arctan2(size, np.dot(start, end)))
