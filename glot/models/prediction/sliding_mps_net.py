"""A trained MPS-Net and the rows of a track in; the body of each row out, predicted from the window around it.

The products of a row are the same in all windows that it is in, so they are computed once. Only the nine frames that
HAFI merges are computed. N windows, T frames, F feature size.
"""

import torch
from torch import Tensor, nn

from glot.models.mps_net import MERGED, MPSNet
from glot.models.prediction.frozen import windows_of
from glot.models.smpl_params import SMPLParams, to_params


class SlidingMPSNet:
    """``model.bodies(windows)`` of a model in evaluation mode, up to rounding, but faster. It merges layers: make a new
    one when the weights change. Not for a model whose windows depend on each other (``similarities="official"``)."""

    @torch.no_grad()
    def __init__(self, model: MPSNet) -> None:
        assert model.config.similarities == "sample"
        self.moca, self.frames, self.device = model.nonlocalblock, model.config.frames, model.mean.device
        self.near = slice(model.middle - MERGED // 2, model.middle + MERGED // 2 + 1)
        moca = model.nonlocalblock
        theta, phi, g, mask = (
            conv.weight.squeeze(-1) for conv in (moca.conv_theta, moca.conv_phi, moca.conv_g, moca.conv_mask)
        )
        self.theta, self.phi = theta, phi
        self.value = (mask.double() @ g.double()).float()  # what a frame adds to a frame that attends to it
        of_feature, of_first, constant = model.regressor.merged()
        self.weight, self.bias = of_feature, of_first @ model.mean + constant

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> SMPLParams:
        """Features (N + T - 1, F) of consecutive rows -> the bodies of the N rows from the middle of a window on."""
        near = self.near
        features = windows_of(rows, self.frames)  # (N, T, F), a view
        theta, phi = (windows_of(rows @ weight.T, self.frames) for weight in (self.theta, self.phi))
        resemblance = torch.bmm(features[:, near], features.mT).softmax(-1)  # (N, 9, T)
        learned = torch.bmm(theta[:, near], phi.mT).softmax(-1)
        weights = self.moca.weigh(resemblance, learned).softmax(-1)
        values = windows_of(rows @ self.value.T, self.frames)
        states = features[:, near] + torch.bmm(weights, values)  # (N, 9, F)
        merged, _ = self.moca.attention(states.unflatten(1, (3, 3)))
        merged, _ = self.moca.attention(merged)
        return to_params(nn.functional.linear(merged, self.weight, self.bias))
