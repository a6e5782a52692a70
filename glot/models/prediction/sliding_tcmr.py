"""A trained TCMR and the rows of a track in; the body of each row out, predicted from the window around it.

Neighbouring windows share all rows but one, so what the first layers multiply with a row is computed once. The second
layer of the network over all frames is computed only up to the middle. N windows, T frames, C width of a network.
"""

import torch
from torch import Tensor, nn

from glot.models.smpl_params import SMPLParams, to_params
from glot.models.tcmr import TCMR


class SlidingTCMR:
    """``model.bodies(windows)`` of a model in evaluation mode, up to rounding, but faster. It uses the model's weights,
    and merges the regressor's iterations: make a new one when the weights change."""

    @torch.no_grad()
    def __init__(self, model: TCMR) -> None:
        self.encoder, self.frames, self.device = model.encoder, model.config.frames, model.mean.device
        of_feature, of_first, constant = model.regressor.merged()
        self.weight, self.bias = of_feature, of_first @ model.mean + constant

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> SMPLParams:
        """Features (N + T - 1, F) of consecutive rows -> the bodies of the N rows from row T // 2 on."""
        encoder, middle, length = self.encoder, self.frames // 2, self.frames
        past = last_state(encoder.gru_bef, Windows(rows[: len(rows) - length + middle], middle))
        future = last_state(encoder.gru_aft, Windows(rows[middle + 1 :], length - middle - 1), backwards=True)
        found = (
            encoder.linear_bef(past.relu_()),
            encoder.linear_cur(self._now(rows).relu_()),
            encoder.linear_aft(future.relu_()),
        )
        integrated, _ = encoder.attention(torch.stack(found, dim=1))
        return to_params(nn.functional.linear(integrated, self.weight, self.bias))

    def _now(self, rows: Tensor) -> Tensor:
        """(N, 2 C): the states of the middle frame in the network over all frames, forward and backward."""
        gru, middle = self.encoder.gru_cur, self.frames // 2
        below: Windows | Tensor = Windows(rows, self.frames)
        for layer in range(gru.num_layers - 1):
            ahead, back = states(gru, layer, below), states(gru, layer, below, backwards=True)
            below = torch.cat((ahead, back), dim=-1)
        last = gru.num_layers - 1
        ahead = states(gru, last, before(below, middle))[:, -1]
        back = states(gru, last, after(below, middle), backwards=True)[:, 0]
        return torch.cat((ahead, back), dim=-1)


class Windows:
    """The N windows of ``length`` consecutive rows that rows (R, F) have. Their products are shared."""

    def __init__(self, rows: Tensor, length: int) -> None:
        self.rows, self.length = rows, length

    def project(self, weight: Tensor, bias: Tensor) -> Tensor:
        """(N, length, C): W x + b of every row of every window, a view."""
        return nn.functional.linear(self.rows, weight, bias).unfold(0, self.length, 1).transpose(1, 2)


def before(below: Windows | Tensor, middle: int) -> Windows | Tensor:
    """The frames 0 ... middle of windows."""
    if isinstance(below, Windows):
        return Windows(below.rows[: len(below.rows) - below.length + middle + 1], middle + 1)
    return below[:, : middle + 1]


def after(below: Windows | Tensor, middle: int) -> Windows | Tensor:
    """The frames middle ... T - 1 of windows."""
    if isinstance(below, Windows):
        return Windows(below.rows[middle:], below.length - middle)
    return below[:, middle:]


def last_state(gru: nn.GRU, below: Windows | Tensor, *, backwards: bool = False) -> Tensor:
    """(N, C): the last state of a network of one direction; ``backwards``: it reads the windows from their end."""
    for layer in range(gru.num_layers):
        below = states(gru, layer, below, backwards=backwards, suffix="")
    assert isinstance(below, Tensor)
    return below[:, 0 if backwards else -1]


def states(
    gru: nn.GRU, layer: int, below: Windows | Tensor, *, backwards: bool = False, suffix: str | None = None
) -> Tensor:
    """(N, T, C): the states of a layer in the order of the frames, as nn.GRU computes them."""
    suffix = ("_reverse" if backwards else "") if suffix is None else suffix
    names = (f"{name}_l{layer}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    of_input, of_state, input_bias, state_bias = (getattr(gru, name) for name in names)
    if isinstance(below, Windows):
        inputs = below.project(of_input, input_bias)
    else:
        inputs = nn.functional.linear(below, of_input, input_bias)  # (N, T, 3 C)
    number, length, _ = inputs.shape
    state = inputs.new_zeros(number, gru.hidden_size)
    found = inputs.new_empty(number, length, gru.hidden_size)
    for frame in reversed(range(length)) if backwards else range(length):
        reset, update, new = inputs[:, frame].chunk(3, dim=-1)
        more_reset, more_update, more_new = nn.functional.linear(state, of_state, state_bias).chunk(3, dim=-1)
        update = (update + more_update).sigmoid_()
        new = (new + (reset + more_reset).sigmoid_() * more_new).tanh_()
        state = torch.lerp(new, state, update)
        found[:, frame] = state
    return found
