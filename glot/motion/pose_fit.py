"""Predicted bodies and 2D landmarks in, bodies whose limbs lie on the landmarks out; shapes stay.

N frames, J joints. The model sees a window of single numbers and says a body that is right in most of what it does; the
landmarks say where in the picture each limb is, and nothing of depth. So joints are turned a little, as little as will
do and as smoothly as they can be (an energy as of SMPLify, Bogo et al. 2016, with the model's answer as the prior).
"""

import torch
from torch import Tensor

from glot.human.body import Body
from glot.human.joints import JOINTS, SMPL_JOINTS, SPIN49
from glot.human.rotation import axis_angle_to_rotmat

# SPIN's joints (SMPL's own where there is a choice) and the landmarks (names of glot.people.landmarks.LANDMARKS) that mean the same.
PARTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
SIDED = tuple((SPIN49.index(f"OP {side}{part.title()}"), side.lower() + part) for part in PARTS for side in "LR")
PAIRS = ((SPIN49.index("OP Nose"), "nose"), *SIDED)
JOINT_ROWS = [joint for joint, _ in PAIRS]
# How far off a joint may well be: radians; joints that are not named, 0.1. Then metres, of the whole body.
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
ACROSS, DEPTH = 0.1, 0.3
OUTLIER = 0.05  # box sides; from there on a landmark pulls no harder
# Squares are weighed against those of OUTLIER distances: how far a joint is turned, in SPREADs, and how that changes.
PRIOR, STEADY = 2.0, 100.0
TRAINING_FPS = 30.0  # what STEADY is for
ROUNDS = 40  # of L-BFGS: joints within a millimetre of where 100 bring them
NEAREST = 0.3  # m from the camera to a joint
CONTEXT = 16  # frames on either side of a piece of a track that are better fitted with it and thrown away


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
    """rotmats (N, 24, 3, 3), betas (N, 10) and places (N, 3: m, of the body's origin) of consecutive frames -> the
    rotmats and places nearby that bring the joints of PAIRS to ``landmarks`` (N, J, 3: x, y px, visibility).

    ``sides`` (N,) of the boxes, px; ``size`` (width, height) and ``focal`` px of the picture's pinhole camera.
    Landmarks of visibility 0 do not count. Nothing is drawn at random.
    """
    spread = torch.full((JOINTS + 1, 3), 0.1)
    for number, name in enumerate(SMPL_JOINTS):
        spread[number] = next((value for part, value in SPREAD.items() if part in name), 0.1)
    spread[JOINTS] = torch.tensor([ACROSS, ACROSS, DEPTH])
    rays = (landmarks[..., :2] - torch.tensor(size) / 2) / focal
    to_outliers = focal / OUTLIER / sides[:, None, None]
    steady = STEADY * min(fps / TRAINING_FPS, 1.0) ** 2  # longer steps change more
    change = torch.zeros(len(rotmats), JOINTS + 1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def changed() -> tuple[Tensor, Tensor]:
        moved = change * spread
        return rotmats @ axis_angle_to_rotmat(moved[:, :JOINTS]), places + moved[:, JOINTS]

    def energy() -> Tensor:
        turns, where = changed()
        placed = body.joints(turns, betas)[:, JOINT_ROWS] + where[:, None]
        off = (placed[..., :2] / placed[..., 2:].clamp(min=NEAREST) - rays) * to_outliers
        distance = (off.square().sum(dim=-1) + 1e-12).sqrt()  # its slope is finite at 0
        pull = torch.where(distance < 1, distance**2, 2 * distance - 1)  # Huber's
        bend = change[2:] - 2 * change[1:-1] + change[:-2]
        total = (landmarks[..., 2] * pull).sum() + PRIOR * (change**2).sum() + steady * (bend**2).sum()
        optimizer.zero_grad()
        total.backward()
        return total

    optimizer.step(energy)
    with torch.no_grad():
        return changed()
