"""A GLoT and windows of features in; the attention maps of its layers out. The model's results do not change.

B batch, T frames, H heads. A map (B, H, queries, keys) holds how much a query attends to each key; its rows sum to 1.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glot.errors import InputError
from glot.models.glot import GLoT
from glot.models.parts.blocks import CrossAttention, SelfAttention

ENCODER, DECODER = "motion.blocks.", "motion.decoder_blocks."  # prefixes of the global branch's layers


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A context in which every forward pass fills the dictionary: name of an attention layer -> its map.

    The layers still use the fused operation, which keeps no map; the map is computed a second time beside it. After the
    context, the model has no hooks.
    """
    maps: dict[str, Tensor] = {}
    recorder = _Recorder(maps)

    def entering(name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any) -> None:
            recorder.layer = name

        return note

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (SelfAttention, CrossAttention))]
    hooks = [layer.register_forward_pre_hook(entering(name)) for name, layer in layers]
    try:
        with recorder:
            yield maps
    finally:
        for hook in hooks:
            hook.remove()


class _Recorder(TorchFunctionMode):
    """Computes the map of each call of the fused attention. A hook sets ``layer`` to the layer that makes the call."""

    def __init__(self, maps: dict[str, Tensor]) -> None:
        super().__init__()
        self.maps, self.layer = maps, ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            queries, keys = (x.detach().float() for x in args[:2])
            scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
            self.maps[self.layer] = scores.softmax(dim=-1)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def global_maps(model: GLoT, windows: Tensor, hidden: NDArray[np.bool_] | None = None) -> dict[str, NDArray]:
    """Windows (B, T, F) -> the maps of the global encoder and decoder: "encoder 1", ..., "decoder 1", ... (B, H, T, T).

    ``hidden`` (T,): frames to hide as in training, the same in every window. The encoder does not get these frames:
    their rows and columns are NaN in its maps. Everything else is as in evaluation. InputError unless as
    many frames are hidden as in the model's training.
    """
    frames = model.config.frames
    mask_noise = None
    if hidden is not None:
        kept = model.motion.kept
        if len(hidden) != frames or (~hidden).sum() != kept:
            raise InputError(
                f"hide {frames - kept} of {frames} frames, as this model's training did, not {hidden.sum()}"
            )
        # The model hides the frames with the largest noise. The other frames get noise that keeps their order.
        order = torch.from_numpy(hidden * frames + np.arange(frames)).to(windows.device)
        mask_noise = order.float().expand(len(windows), frames)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    # The mode of ``motion`` decides about masking. The mode of its children decides about dropout, which stays off.
    model.motion.training = hidden is not None
    try:
        with recording(model) as maps:
            model.motion(windows, model.mean, mask_noise)
    finally:
        for module, mode in modes.items():
            module.training = mode
    out: dict[str, NDArray] = {}
    for name, found in maps.items():
        values = found.cpu().numpy()
        branch = "decoder" if name.startswith(DECODER) else "encoder"
        if branch == "encoder" and hidden is not None:
            full = np.full((*values.shape[:2], frames, frames), np.nan, np.float32)
            seen = np.flatnonzero(~hidden)
            full[..., seen[:, None], seen] = values
            values = full
        number = int(name.removeprefix(DECODER if branch == "decoder" else ENCODER).partition(".")[0])
        out[f"{branch} {number + 1}"] = values
    return out


def hidden_frames(model: GLoT, *, seed: int = 0) -> NDArray[np.bool_]:
    """(T,): a mask as training draws it, the same for the same seed; InputError for a model that never masks."""
    frames, kept = model.config.frames, model.motion.kept
    if kept == frames:
        raise InputError("this model was trained without masking (model.mask_ratio=0), so it has no mask token")
    return np.random.default_rng(seed).permutation(frames) >= kept
