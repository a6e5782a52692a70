"""Motions and what the discriminator says of them in; the two losses of adversarial training out (least squares).

B motions, T frames. VIBE, equations 4 and 5; the released code has both with a weight of 0.5.
"""

from torch import Tensor

from glot.human.rotation import rotmat_to_axis_angle
from glot.models.parts.motion_discriminator import MotionDiscriminator
from glot.models.smpl_params import SMPLParams


def body_pose_of(motion: SMPLParams) -> Tensor:
    """Bodies (B, T, ...) -> the axis-angles of joints 1 ... 23 (B, T, 69), with a finite gradient."""
    return rotmat_to_axis_angle(motion.rotmats[..., 1:, :, :]).flatten(-2)


def generator_loss(discriminator: MotionDiscriminator, predicted: Tensor, *, count: Tensor | float) -> Tensor:
    """How far predicted motions (B, T, 69) are from being taken for real: sum of (D - 1)^2 / ``count``."""
    return (discriminator(predicted) - 1).square().sum() / count


def discriminator_losses(
    discriminator: MotionDiscriminator,
    predicted: Tensor,
    real: Tensor,
    *,
    count: Tensor | float,
    real_count: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """How far real motions (B_real, T, 69) are from 1, and predicted ones (B, T, 69) from 0: sums / their counts."""
    of_real = (discriminator(real) - 1).square().sum() / real_count
    return of_real, discriminator(predicted.detach()).square().sum() / count
