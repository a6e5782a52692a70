"""Files of the official release in, models out, and the reverse: GLoT checkpoints.

A written file has every tensor that the official evaluation expects, including SMPL's buffers and unused layers.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from glot.errors import InputError
from glot.human.body import Body
from glot.model_configs import GLoTConfig
from glot.models.architectures import build
from glot.models.checkpoint import Checkpoint, assign
from glot.models.glot import GLoT
from glot.models.parts.blocks import Positions
from glot.models.released.release_layout import (
    Release,
    mean_buffers,
    read_release,
    require_official,
    smpl_buffers,
)
from glot.models.smpl_params import ESTIMATE
from glot.recipes import table1_3dpw

# Official name -> ours, longest prefix first; what follows the prefix is kept.
OFFICIAL_NAMES = {
    "global_modeling.proj.": "motion.project.",
    "global_modeling.trans.pos_embed": "motion.positions.vectors",
    "global_modeling.trans.decoder_pos_embed": "motion.decoder_positions.vectors",
    "global_modeling.trans.mask_token_mlp.": "motion.token.mlp.",
    "global_modeling.trans.blocks.": "motion.blocks.",
    "global_modeling.trans.norm.": "motion.norm.",
    "global_modeling.trans.decoder_embed.": "motion.narrow.",
    "global_modeling.trans.decoder_blocks.": "motion.decoder_blocks.",
    "global_modeling.trans.decoder_norm.": "motion.decoder_norm.",
    "global_modeling.out_proj.": "motion.widen.",
    "global_modeling.regressor.fc1.": "iterative.fc1.",
    "global_modeling.regressor.decpose.": "iterative.pose.",
    "global_modeling.regressor.decshape.": "iterative.shape.",
    "global_modeling.regressor.deccam.": "iterative.cam.",
    "proj_short.": "correction.project.",
    "proj_mem.": "correction.project_memory.",
    "local_trans_en.pos_embed": "correction.positions.vectors",
    "local_trans_en.blocks.": "correction.blocks.",
    "local_trans_en.norm.": "correction.norm.",
    "local_trans_de.q_l.": "correction.attend.query.",
    "local_trans_de.kv_l.": "correction.attend.key_value.",
    "local_trans_de.proj.": "correction.attend.proj.",
    "regressor.fc1.": "correction.regressor.fc_shape.",
    "regressor.fc2.": "correction.regressor.fc_pose.",
    "regressor.decshape.": "correction.regressor.shape.",
    "regressor.deccam.": "correction.regressor.cam.",
    "regressor.local_reg.joint_regs.": "correction.regressor.joints.",
}
# These layers exist in official checkpoints, and no output depends on them.
OFFICIAL_DEAD = ("global_modeling.regressor.fc2.", "regressor.local_reg.decshape.", "regressor.local_reg.deccam.")
# The shapes of these layers. They are written as zeros.
DEAD_SHAPES = {
    "global_modeling.regressor.fc2.weight": (1024, 1024),
    "global_modeling.regressor.fc2.bias": (1024,),
    "regressor.local_reg.decshape.weight": (10, 1024),
    "regressor.local_reg.decshape.bias": (10,),
    "regressor.local_reg.deccam.weight": (3, 1024),
    "regressor.local_reg.deccam.bias": (3,),
}
# Fields of GLoTConfig that may differ from the official model, because its layers are the same with any value.
FREE = (
    *("frames", "nearby_frames", "mask_ratio", "detach_global", "local_supervised_frames", "positions"),
    *("first_corrections", "dropout", "drop_path", "regressor_dropout", "hscr_dropout"),
)
# Tensors that are written for every model, and that some of our models do not have.
FILLED = ("motion.token.", "motion.positions.", "motion.decoder_positions.", "correction.positions.")


def from_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """An official GLoT state dict under our names, and the names left out: body model buffers and unused layers.

    Raises InputError at the first name that is none of these.
    """
    ours: dict[str, Tensor] = {}
    left_out: list[str] = []
    mean: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        if ".smpl." in name or name.startswith(OFFICIAL_DEAD):
            left_out.append(name)
        elif name.startswith("global_modeling.regressor.init_"):
            mean[name.rpartition("_")[2]] = tensor.flatten().float()
        else:
            prefix = next((prefix for prefix in OFFICIAL_NAMES if name.startswith(prefix)), None)
            if prefix is None:
                raise InputError(f"{name}: no such tensor in a GLoT checkpoint")
            ours[(OFFICIAL_NAMES[prefix] + name.removeprefix(prefix)).replace(".mlp.fc", ".fc")] = tensor
    if len(mean) == 3:
        ours["mean"] = torch.cat((mean["pose"], mean["shape"], mean["cam"]))
    return ours, left_out


def load_official(path: Path) -> Checkpoint:
    """A published GLoT checkpoint (``model_best.pth.tar``). Window length and nearby frames are read from its tensors.

    The model computes what the official code computes, also the slices of the global pose in the kinematic regressor
    (``GLoTConfig.hscr_global_pose``). InputError for a file that is no such checkpoint.
    """
    return glot_checkpoint(read_release(path))


def glot_checkpoint(release: Release) -> Checkpoint:
    """``load_official`` for a file that has been read."""
    weights, _ = from_official(release.state)
    positions = ("motion.positions.vectors", "correction.positions.vectors")
    missing = [name for name in (*positions, "mean") if name not in weights]
    if missing:
        raise InputError(f"{release.path}: lacks what we call {missing[0]}, so it is not a whole GLoT checkpoint")
    if (odd := next((name for name in positions if weights[name].ndim != 3), None)) is not None:
        raise InputError(f"{release.path}: what we call {odd} is {tuple(weights[odd].shape)}, not (1, T, C)")
    frames, around = (weights[name].shape[1] for name in positions)
    try:
        found = GLoTConfig(frames=frames, nearby_frames=around // 2, hscr_global_pose="official")
    except InputError as error:
        raise InputError(f"{release.path}: {error}") from None
    config = release.config(found, FREE)
    model = build(config, weights["mean"])
    if release.own is not None:  # what the official code needs, and a model without these tensors does not
        expected = model.state_dict()
        weights = {name: x for name, x in weights.items() if name in expected or not name.startswith(FILLED)}
    assign(model, weights, release.path)
    return release.checkpoint(model, table1_3dpw())


def to_official(model: GLoT, body: Body) -> dict[str, Tensor]:
    """The state dict that the official code would have saved for ``model``: 198 tensors.

    The official evaluation loads strictly, so ``body`` and the unused layers are part of it. Raises InputError where
    the official code has no such model: ``model`` must have the kinematic regressor with the official slices of the
    global pose, the official sizes and both branches.
    """
    require_official(model.config, GLoTConfig(hscr_global_pose="official"), FREE)
    state = {
        official_name(name): tensor.detach().clone() for name, tensor in model.state_dict().items() if name != "mean"
    }
    for name in ("motion.positions", "motion.decoder_positions", "correction.positions"):
        # Fixed sines are not in our state dict; the official one holds them as values of learned positions.
        positions = model.get_submodule(name)
        assert isinstance(positions, Positions)
        state[official_name(f"{name}.vectors")] = positions.vectors.detach().clone()
    if model.config.frames == model.motion.kept:  # it never masks, so it has no mask token; evaluation does not use it
        sizes = {"0": (256, ESTIMATE), "2": (512, 256), "4": (model.config.decoder_width, 512)}
        for layer, size in sizes.items():
            state[f"global_modeling.trans.mask_token_mlp.{layer}.weight"] = torch.zeros(size)
            state[f"global_modeling.trans.mask_token_mlp.{layer}.bias"] = torch.zeros(size[0])
    state |= mean_buffers(model.mean.detach(), "global_modeling.regressor")
    state |= {name: torch.zeros(size) for name, size in DEAD_SHAPES.items()}
    state |= smpl_buffers(body, ("regressor.smpl", "global_modeling.regressor.smpl"))
    return {name: tensor.cpu().contiguous() for name, tensor in state.items()}


def official_name(ours: str) -> str:
    """The official name of one of our parameters."""
    ours = re.sub(r"(blocks\.\d+)\.fc", r"\1.mlp.fc", ours)
    theirs, prefix = next((theirs, prefix) for theirs, prefix in OFFICIAL_NAMES.items() if ours.startswith(prefix))
    return theirs + ours.removeprefix(prefix)
