"""A trained trunk in, the weights that extraction uses out: features of one standard deviation, then safetensors."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from glot.human.crop import CROP_SIZE
from glot.location import move_in, temporary_of
from pipelines.pretraining.renders import Renders
from pipelines.pretraining.training_crops import collate, take_crop

SPREAD = 0.5  # standard deviation of every scaled feature, as in networks that were trained on photographs
LARGEST_FACTOR = 50.0  # so features that hardly ever change stay small
SPREAD_IMAGES = 500  # number of pictures from which the standard deviations are computed
BATCH = 25


def write_weights(trunk: nn.Module, path: Path) -> None:
    """The trunk as safetensors: convolutions in float16, batch norms in float32 (small variances would underflow)."""
    state = {
        key: value.detach().cpu().to(torch.float16 if value.ndim > 1 else torch.float32).contiguous()
        for key, value in trunk.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    temporary = temporary_of(path)
    save_file(state, temporary, metadata={"format": "pt", "architecture": "torchvision resnet50 without fc"})
    move_in(temporary, path)


def equalise_features(trunk: nn.Module, renders: Renders, *, device: torch.device) -> None:
    """Scales every feature to the standard deviation SPREAD.

    After training, most features change by a few hundredths only. A model that reads them starts with random weights
    and adds position encodings of size one, so it would first have to learn that features contain a signal.
    """
    spread = feature_spread(trunk, renders, device=device)
    scale_features(trunk, SPREAD / spread.clamp(min=SPREAD / LARGEST_FACTOR))


@torch.no_grad()
def feature_spread(trunk: nn.Module, renders: Renders, *, device: torch.device) -> Tensor:
    """(2048,) standard deviations of the features of the first SPREAD_IMAGES pictures."""
    trunk.eval()
    features = []
    for start in range(0, min(SPREAD_IMAGES, len(renders)), BATCH):
        numbers = range(start, min(start + BATCH, len(renders)))
        images, _ = collate([take_crop(renders, i, size=CROP_SIZE) for i in numbers], device)
        features.append(trunk(images))
    return torch.cat(features).std(0)


@torch.no_grad()
def scale_features(trunk: nn.Module, factors: Tensor) -> None:
    """Multiplies every feature by its positive factor (2048,).

    The scaling is exact, because a ReLU is linear for positive factors. The factors go into the last batch norms, and
    their inverses go into the layers that read the result.
    """
    for block in trunk.get_submodule("layer4").children():
        norms = [block.get_submodule("bn3")]
        if isinstance(shortcut := getattr(block, "downsample", None), nn.Sequential):
            norms.append(shortcut[1])
        else:  # this block reads the scaled output of the block before it
            block.get_parameter("conv1.weight").div_(factors[:, None, None])
        for norm in norms:
            norm.get_parameter("weight").mul_(factors)
            norm.get_parameter("bias").mul_(factors)
