"""Motions in; a vector that describes each, and motions decoded from such vectors, out: MEVA's variational autoencoder.

N motions, T frames, Z numbers of a vector (512). A pose is 24 rotations, 6D in MEVA's layout (glot.models.meva). The
names of the layers are those of the release (https://doi.org/10.1007/978-3-030-69541-5_20, section 3.1).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.models.smpl_params import POSE

ROOT = slice(0, 6)  # the numbers of the root's rotation
ROOT_WEIGHT, KL_WEIGHT = 20.0, 0.1  # of the loss


class MotionVAE(nn.Module):
    """``variant``: where the first pose of a decoded motion comes from, see glot.model_configs.MEVAConfig."""

    def __init__(self, variant: str, *, latent: int = 512, hidden: int = 1024) -> None:
        super().__init__()
        self.variant = variant
        self.e_rnn = BothDirections(POSE, latent // 2)
        self.e_mlp = Layers((latent, hidden, latent), torch.tanh)
        self.e_mu = nn.Linear(latent, latent)
        self.e_logvar = nn.Linear(latent, latent)
        self.d_rnn = OneDirection(POSE + latent, latent)
        self.d_mlp = Layers((latent, hidden, latent), torch.tanh)
        self.d_out = nn.Linear(latent, POSE)
        if variant == "latent_only":
            self.init_pose_mlp = Layers((latent, hidden, latent), torch.relu)
            self.init_pose_out = nn.Linear(latent, POSE)

    def encode(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, 144) -> the mean and the logarithm of the variance of the vector, each (N, Z)."""
        states = self.e_mlp(self.e_rnn(motion).mean(1))
        return self.e_mu(states), self.e_logvar(states)

    def first_pose(self, latent: Tensor) -> Tensor:
        """The first pose (N, 144) of the motions with these vectors (N, Z); for "latent_only"."""
        pose: Tensor = self.init_pose_out(self.init_pose_mlp(latent))
        return pose

    def decode(self, latent: Tensor, first: Tensor, frames: int) -> Tensor:
        """Vectors (N, Z), first poses (N, 144) -> the poses of ``frames`` frames (N, frames, 144)."""
        cell = self.d_rnn.rnn_f
        of_pose, of_latent = cell.weight_ih.split((POSE, latent.shape[1]), dim=1)
        known = F.linear(latent, of_latent, cell.bias_ih)  # the same in every frame
        pose, state, poses = first, torch.zeros_like(latent), []
        for _ in range(frames):
            reset, update, new = (known + F.linear(pose, of_pose)).chunk(3, dim=-1)
            more_reset, more_update, more_new = F.linear(state, cell.weight_hh, cell.bias_hh).chunk(3, dim=-1)
            new = torch.tanh(new + torch.sigmoid(reset + more_reset) * more_new)
            state = torch.lerp(new, state, torch.sigmoid(update + more_update))
            pose = self.d_out(self.d_mlp(state))
            poses.append(pose)
        return torch.stack(poses, dim=1)

    def reconstruct(self, motion: Tensor, latent: Tensor) -> Tensor:
        """Motions (N, T, 144) as decoded from their vectors (N, Z); "with_first_pose" gets their first poses."""
        first = self.first_pose(latent) if self.variant == "latent_only" else motion[:, 0]
        return self.decode(latent, first, motion.shape[1])


def vae_losses(decoded: Tensor, motion: Tensor, mu: Tensor, logvar: Tensor) -> dict[str, Tensor]:
    """The weighted terms of the loss, each a sum over everything, divided by the number of motions N.

    ``decoded`` and ``motion`` (N, T, 144), ``mu`` and ``logvar`` (N, Z). The term "error" is over all numbers, those of
    the root included; "kl" is the divergence of the vectors' distribution from a normal one.
    """
    squares = (decoded - motion).square()
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()
    terms = {"error": squares.sum(), "root": ROOT_WEIGHT * squares[..., ROOT].sum(), "kl": KL_WEIGHT * kl}
    return {name: term / len(motion) for name, term in terms.items()}


class Layers(nn.Module):
    """Linear layers with an activation after each."""

    def __init__(self, widths: tuple[int, ...], activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.affine_layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.affine_layers:
            x = self.activation(layer(x))
        return x


class OneDirection(nn.Module):
    """A recurrent network that the decoder steps through."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.rnn_f = nn.GRUCell(size, width)


class BothDirections(nn.Module):
    """A recurrent network forward and one backward."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.rnn_f = nn.GRUCell(size, width)
        self.rnn_b = nn.GRUCell(size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, size) -> the states of both (N, T, 2 width), in the order of the frames."""
        ahead = _states(self.rnn_f, list(x.unbind(1)))
        back = _states(self.rnn_b, list(x.unbind(1))[::-1])[::-1]
        return torch.cat((torch.stack(ahead, 1), torch.stack(back, 1)), dim=-1)


def _states(cell: nn.GRUCell, inputs: list[Tensor]) -> list[Tensor]:
    states: list[Tensor] = []
    for value in inputs:
        states.append(cell(value, states[-1] if states else None))
    return states
