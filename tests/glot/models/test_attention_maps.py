"""Recorded maps are those that the layers used; recording does not change what the model computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glot.errors import InputError
from glot.models.attention_maps import global_maps, hidden_frames, recording
from glot.models.parts.blocks import CrossAttention, SelfAttention
from tests.fixtures.small_model import EXACT, SMALL, features, small_model, tensors


def values_of(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """(B, H, keys, C / H): the values of an attention layer, from its weights alone."""
    if isinstance(layer, SelfAttention):
        said = inputs[0] @ layer.qkv.weight.T + layer.qkv.bias
    else:
        assert isinstance(layer, CrossAttention)
        said = inputs[1] @ layer.key_value.weight.T
    values = said[..., -layer.proj.in_features :]
    return values.unflatten(-1, (layer.heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("training", [False, True])
def test_map_times_values_is_the_layers_own_output(training: bool) -> None:
    model = small_model(EXACT).train(training)
    inputs: dict[str, tuple[Tensor, ...]] = {}
    outputs: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, (SelfAttention, CrossAttention)):
            layer.register_forward_hook(lambda _, args, __, name=name: inputs.update({name: args}))
            layer.proj.register_forward_hook(lambda _, args, __, name=name: outputs.update({name: args[0]}))
    with recording(model) as maps, torch.no_grad():
        model(features(EXACT))
    assert maps.keys() == inputs.keys()
    assert len(maps) == EXACT.depth + EXACT.decoder_depth + EXACT.local_depth + 1
    for name, found in maps.items():
        torch.testing.assert_close(found.sum(dim=-1), torch.ones(found.shape[:-1]))
        blended = found @ values_of(model.get_submodule(name), inputs[name])
        torch.testing.assert_close(blended.transpose(1, 2).flatten(-2), outputs[name], atol=1e-5, rtol=1e-4)


def test_recording_changes_no_bit_and_leaves_nothing_behind() -> None:
    model, windows = small_model().eval(), features()
    with torch.no_grad():
        before = model(windows)
        with recording(model) as maps:
            during = model(windows)
        seen = {name: found.clone() for name, found in maps.items()}
        after = model(windows + 1)
    for a, b in zip(tensors(before), tensors(during), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(after.local.betas, before.local.betas)
    assert all(torch.equal(maps[name], seen[name]) for name in seen)  # the last pass was not recorded
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_masked_maps_are_those_of_training_on_the_grid_of_frames() -> None:
    model, windows = small_model(EXACT), features(EXACT)
    hidden = hidden_frames(model, seed=4)
    kept = ~hidden
    assert kept.sum() == 4
    model.train()
    model.correction.blocks[0].eval()  # a mode that no call of train() or eval() gives
    modes = {name: module.training for name, module in model.named_modules()}
    maps = global_maps(model, windows, hidden)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert sorted(maps) == ["decoder 1", "encoder 1", "encoder 2"]
    # In training mode without any dropout, with the frames to hide given by mask_noise.
    mask_noise = torch.from_numpy(hidden.astype(np.float32) + np.arange(8) / 100).expand(3, 8)
    with recording(model) as raw, torch.no_grad():
        assert torch.equal(model(windows, mask_noise).mask, torch.from_numpy(hidden).expand(3, 8))
    np.testing.assert_allclose(maps["encoder 2"][:, :, kept][..., kept], raw["motion.blocks.1.attn"].numpy(), atol=1e-6)
    np.testing.assert_allclose(maps["decoder 1"], raw["motion.decoder_blocks.0.attn"].numpy(), atol=1e-6)
    assert np.isnan(maps["encoder 1"][:, :, hidden]).all()
    assert np.isnan(maps["encoder 1"][..., hidden]).all()


def test_hidden_frames_do_not_change_masked_maps_and_dropout_is_off() -> None:
    model, windows = small_model(SMALL).train(), features()
    hidden = hidden_frames(model)
    changed = windows.clone()
    changed[:, torch.from_numpy(hidden)] = 100.0
    with_mask = global_maps(model, windows, hidden)
    for name, found in global_maps(model, changed, hidden).items():
        np.testing.assert_array_equal(found, with_mask[name])
    without = global_maps(model, windows)
    assert not np.allclose(without["encoder 1"], global_maps(model, changed)["encoder 1"], atol=1e-3)
    for found in without.values():
        np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


def test_impossible_masks_are_refused() -> None:
    model = small_model()
    with pytest.raises(InputError, match="hide 4 of 8 frames"):
        global_maps(model, features(), np.arange(8) < 3)
    with pytest.raises(InputError, match="trained without masking"):
        hidden_frames(small_model(replace(SMALL, mask_ratio=0.0)))
