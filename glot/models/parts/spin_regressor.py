"""A feature of a frame in; its estimate of SMPL parameters out: SPIN's iterative regressor, which four models have.

N frames, F feature size. The names of the layers are those of SPIN's checkpoints.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.models.smpl_params import CAM, ESTIMATE, POSE, SHAPE

HEAD_GAIN = 0.01  # of the first weights of the heads, so that training starts near the mean body


class RegressorConfig(Protocol):
    """The fields of a model's configuration that the regressor needs."""

    @property
    def feature_size(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def iterations(self) -> int: ...
    @property
    def regressor_dropout(self) -> float: ...


class SpinRegressor(nn.Module):
    """Corrects an estimate three times. Unlike GLoT's regressor, it has a second layer and a second dropout.

    There is no activation. So in evaluation, the result is an affine function of the feature and the first estimate.
    """

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.iterations, self.dropout = config.iterations, config.regressor_dropout
        self.fc1 = nn.Linear(config.feature_size + ESTIMATE, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden)
        self.decpose = nn.Linear(config.hidden, POSE)
        self.decshape = nn.Linear(config.hidden, SHAPE)
        self.deccam = nn.Linear(config.hidden, CAM)
        for head in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(head.weight, gain=HEAD_GAIN)

    def forward(self, features: Tensor, first: Tensor) -> Tensor:
        """features (..., F), the first estimate (..., 157) or (157,) -> the last estimate (..., 157)."""
        of_feature, of_estimate = self.fc1.weight.split((features.shape[-1], ESTIMATE), dim=1)
        known = F.linear(features, of_feature, self.fc1.bias)  # the same in every iteration
        heads = torch.cat([head.weight for head in self._heads])
        biases = torch.cat([head.bias for head in self._heads])
        estimate = first
        for _ in range(self.iterations):
            hidden = F.dropout(known + F.linear(estimate, of_estimate), self.dropout, self.training)
            hidden = F.dropout(self.fc2(hidden), self.dropout, self.training)
            estimate = estimate + F.linear(hidden, heads, biases)
        return estimate

    @property
    def _heads(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.decpose, self.decshape, self.deccam

    @torch.no_grad()
    def merged(self) -> tuple[Tensor, Tensor, Tensor]:
        """The affine function that the regressor is in evaluation: A (157, F), B (157, 157), c (157,) with
        estimate = A feature + B first + c. Computed in double precision."""
        feature_size = self.fc1.in_features - ESTIMATE
        fc1, fc2 = self.fc1.weight.double(), self.fc2.weight.double()
        heads = torch.cat([head.weight for head in self._heads]).double()
        bias = torch.cat([head.bias for head in self._heads]).double()
        through = heads @ fc2  # of the first hidden layer
        step = through @ fc1[:, feature_size:]
        constant = through @ self.fc1.bias.double() + heads @ self.fc2.bias.double() + bias
        one = torch.eye(ESTIMATE, dtype=torch.float64, device=step.device)
        of_first, of_rest = one, torch.zeros_like(one)
        for _ in range(self.iterations):
            of_first, of_rest = of_first + step @ of_first, of_rest + step @ of_rest + one
        return (
            (of_rest @ through @ fc1[:, :feature_size]).float(),
            of_first.float(),
            (of_rest @ constant).float(),
        )
