"""People in T-pose in; the mean person and ten directions of body shape out, by PCA."""

from typing import NamedTuple

import numpy as np

from pipelines.open_body.anny_people import FLIP, MIRRORED, Array

SHAPES = 10


class Shapes(NamedTuple):
    """Vertices are template (V, 3) + directions (V, 3, 10) @ betas; joints are (24, 3) + (24, 3, 10) @ betas."""

    template: Array
    directions: Array
    joints: Array
    joint_directions: Array
    explained: float  # share of the variance that the directions explain


def principal_shapes(vertices: Array, joints: Array, mirror: Array) -> Shapes:
    """PCA of T-posed people (P, V, 3), made symmetric. One unit of beta is one standard deviation."""
    vertices = (vertices + vertices[:, mirror] * FLIP) / 2
    joints = (joints + joints[:, MIRRORED] * FLIP) / 2
    template, mean_joints = vertices.mean(0), joints.mean(0)
    flat = (vertices - template).reshape(len(vertices), -1)
    scores, spread, modes = np.linalg.svd(flat, full_matrices=False)
    scale = spread[:SHAPES] / np.sqrt(len(vertices) - 1)
    directions = (modes[:SHAPES] * scale[:, None]).reshape(SHAPES, -1, 3).transpose(1, 2, 0)
    betas = scores[:, :SHAPES] * np.sqrt(len(vertices) - 1)
    # The sign of a principal direction is arbitrary. Here a larger beta gives a higher head.
    sign = np.where(directions[template[:, 1].argmax(), 1] < 0, -1.0, 1.0)
    directions, betas = directions * sign, betas * sign
    joint_directions = np.linalg.lstsq(betas, (joints - mean_joints).reshape(len(joints), -1), rcond=None)[0]
    explained = float((spread[:SHAPES] ** 2).sum() / (spread**2).sum())
    return Shapes(template, directions, mean_joints, joint_directions.T.reshape(24, 3, SHAPES), explained)
