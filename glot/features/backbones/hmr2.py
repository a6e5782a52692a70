"""HMR2.0 as a backbone: 256 px crops to its token of 1024 numbers, and to its first guess of the body."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glot.features.backbones.backbone import Backbone, Network
from glot.features.backbones.backbone_kinds import BackboneChoice, BackboneKind, needed_weights
from glot.features.backbones.hmr2_crops import RULES
from glot.features.backbones.hmr2_file import load_hmr2
from glot.features.backbones.hmr2_network import HMR2
from glot.features.backbones.weights_hash import weights_hash
from glot.features.schema import GUESS_SIZE
from glot.human.crop import normalise


class HMR2Backbone(Backbone):
    """The token before the layers that read the body from it. The middle 192 columns of a crop are seen.

    On a CPU, and on a GPU in float32 (TF32 off), torch runs it. "bfloat16" computes all but the first guess in it.
    """

    def __init__(self, kind: BackboneKind, module: HMR2, *, weights_name: str, rule: str, first_guess: bool) -> None:
        digest = hashlib.sha256(f"{weights_hash(module.state_dict())} {sorted(RULES[rule].to_dict().items())}".encode())
        super().__init__(
            kind,
            weights_name=weights_name,
            hash=digest.hexdigest()[:16],
            feature_size=module.smpl_head.decpose.in_features,
            crop_rule=RULES[rule],
            guess_size=GUESS_SIZE if first_guess else 0,
        )
        self.module = module

    def network(self, *, device: str, precision: str) -> Network:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        dtype: torch.dtype = getattr(torch, precision)
        as_it_is = device == "cpu" and dtype == torch.float32  # 2.7 GB that need no copy
        module = self.module if as_it_is else self.module.placed(device, dtype)
        return _Runner(module, torch.device(device), dtype, with_guess=self.guess_size > 0)


class _Runner:
    """Runs the network on a device in a type of numbers."""

    def __init__(self, module: HMR2, device: torch.device, dtype: torch.dtype, *, with_guess: bool) -> None:
        self.module, self.device, self.dtype, self.with_guess = module, device, dtype, with_guess

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = normalise(torch.from_numpy(crops).to(self.device)).to(self.dtype)
        tokens = self.module(images)
        values = [tokens.float(), self.module.guess(tokens)] if self.with_guess else [tokens.float()]
        found: NDArray[np.float32] = torch.cat(values, dim=1).cpu().numpy()
        return found


def load(choice: BackboneChoice) -> HMR2Backbone:
    """HMR2.0 with the weights in a file."""
    weights = needed_weights(choice)
    assert isinstance(weights, Path)
    return HMR2Backbone(
        choice.kind,
        load_hmr2(weights),
        weights_name=weights.name,
        rule=choice.rule_name,
        first_guess=choice.first_guess,
    )
