"""Predicted bodies and 2D landmarks in; bodies whose limbs lie on the landmarks out. Shapes stay.

N frames, J joints. Most of a predicted body is right. The landmarks show where in the picture each limb is, but
nothing about depth. So the joints are turned by small angles that change smoothly over time. The
energy is like that of SMPLify (Bogo et al. 2016), with the prediction as the prior.
"""

import torch
from torch import Tensor

from glot.human.body import Body
from glot.human.joints import JOINTS, SMPL_JOINTS, SPIN49
from glot.human.rotation import axis_angle_to_rotmat

# Pairs of SPIN's joints (those of SMPL where there is a choice) and the landmarks (names in
# glot.people.landmarks.LANDMARKS) at the same places of the body.
SIDED_JOINTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
SIDED = tuple((SPIN49.index(f"OP {side}{name.title()}"), side.lower() + name) for name in SIDED_JOINTS for side in "LR")
POSE_PAIRS = ((SPIN49.index("OP Nose"), "nose"), *SIDED)
JOINT_ROWS = [joint for joint, _ in POSE_PAIRS]
# Expected error of the predicted rotation of a joint, radians. OTHER_SPREAD is for joints that SPREAD does not name.
SPREAD = {
    "hip": 0.3,
    "knee": 0.3,
    "shoulder": 0.4,
    "elbow": 0.4,
    "ankle": 0.2,
    "spine": 0.12,
    "neck": 0.2,
    "head": 0.2,
    "hand": 0.01,
}
OTHER_SPREAD = 0.1
ACROSS, DEPTH = 0.1, 0.3  # expected error of the place of the whole body, m
OUTLIER = 0.05  # in box sides: the distance from a joint up to which the pull of its landmark grows
# Weights of the energy's terms. PRIOR: the turn of a joint, in units of its spread, squared. STEADY: the second
# difference of these turns over frames, squared. The distance to the landmarks, in units of OUTLIER, has weight 1.
PRIOR, STEADY = 2.0, 100.0
TRAINING_FPS = 30.0  # frame rate for which STEADY is set
ROUNDS = 40  # iterations of L-BFGS; the joints are then within 1 mm of the result of 100 iterations
NEAREST = 0.3  # least distance from the camera to a joint, m
CONTEXT = 16  # frames on either side of a piece of a track that are fitted together with it and then dropped


def fit_poses(
    rotmats: Tensor,
    betas: Tensor,
    places: Tensor,
    landmarks: Tensor,
    sides: Tensor,
    *,
    body: Body,
    size: tuple[int, int],
    focal: float,
    fps: float,
) -> tuple[Tensor, Tensor]:
    """Rotmats (N, 24, 3, 3) and places (N, 3) that bring the joints of POSE_PAIRS to the landmarks.

    ``rotmats``, ``betas`` (N, 10) and ``places`` (the body's origin, m) are the prediction for consecutive frames.
    ``landmarks`` (N, J, 3) are x, y px and visibility, 0 for landmarks that do not count. ``sides`` (N,) are the sides
    of the boxes, px; ``size`` (width, height) and ``focal`` px belong to the picture's pinhole camera. Deterministic.
    """
    spread = torch.full((JOINTS + 1, 3), OTHER_SPREAD)
    for number, name in enumerate(SMPL_JOINTS):
        spread[number] = next((value for joint, value in SPREAD.items() if joint in name), OTHER_SPREAD)
    spread[JOINTS] = torch.tensor([ACROSS, ACROSS, DEPTH])
    rays = (landmarks[..., :2] - torch.tensor(size) / 2) / focal
    to_outliers = focal / OUTLIER / sides[:, None, None]
    steady = STEADY * min(fps / TRAINING_FPS, 1.0) ** 2  # with a lower frame rate, more changes from frame to frame
    change = torch.zeros(len(rotmats), JOINTS + 1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def changed() -> tuple[Tensor, Tensor]:
        moved = change * spread
        return rotmats @ axis_angle_to_rotmat(moved[:, :JOINTS]), places + moved[:, JOINTS]

    def energy() -> Tensor:
        turns, where = changed()
        placed = body.joints(turns, betas)[:, JOINT_ROWS] + where[:, None]
        off = (placed[..., :2] / placed[..., 2:].clamp(min=NEAREST) - rays) * to_outliers
        distance = (off.square().sum(dim=-1) + 1e-12).sqrt()  # 1e-12 keeps the slope finite at 0
        pull = torch.where(distance < 1, distance**2, 2 * distance - 1)  # Huber's loss
        bend = change[2:] - 2 * change[1:-1] + change[:-2]
        total = (landmarks[..., 2] * pull).sum() + PRIOR * (change**2).sum() + steady * (bend**2).sum()
        optimizer.zero_grad()
        total.backward()
        return total

    optimizer.step(energy)
    with torch.no_grad():
        return changed()
