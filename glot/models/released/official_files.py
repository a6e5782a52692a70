"""Files of the official release in, models out, and the reverse: GLoT checkpoints.

A written file has every tensor that the official evaluation expects, including SMPL's buffers and unused layers.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from glot.errors import InputError
from glot.human.body import Body, load_body, require_body
from glot.human.body_files import SMPL_VERTICES
from glot.human.joints import JOINTS
from glot.location import move_in, temporary_of
from glot.model_configs import GLoTConfig
from glot.models.checkpoint import Checkpoint, assign, load_checkpoint, read_torch_file
from glot.models.glot import GLoT
from glot.models.parts.blocks import Positions
from glot.models.smpl_params import ESTIMATE, split_estimate
from glot.models.spec import OfficialSpec
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
BODIES = 64  # official checkpoints hold poses of zeros for a batch of this size
# Fields of GLoTConfig that may differ from the official model, because its layers are the same with any value.
FREE = ("frames", "nearby_frames", "mask_ratio", "detach_global", "local_supervised_frames")


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
    state = read_torch_file(path)
    if not isinstance(state, dict) or not isinstance(state.get("gen_state_dict"), dict):
        raise InputError(f"{path}: no gen_state_dict in it, so it is no GLoT checkpoint")
    weights, _ = from_official(state["gen_state_dict"])
    positions = ("motion.positions.vectors", "correction.positions.vectors")
    missing = [name for name in (*positions, "mean") if name not in weights]
    if missing:
        raise InputError(f"{path}: lacks what we call {missing[0]}, so it is not a whole GLoT checkpoint")
    frames, around = (weights[name].shape[1] for name in positions)
    config = GLoTConfig(frames=frames, nearby_frames=around // 2, hscr_global_pose="official")
    model = GLoT.from_mean(config, weights["mean"])
    assign(model, weights, path)
    # The file holds the body that it was trained with.
    template = next((len(x) for name, x in state["gen_state_dict"].items() if name.endswith(".smpl.v_template")), 0)
    body = {"open": False} if template == SMPL_VERTICES else {}
    info = {
        "body": body,
        "features": {"backbone": {"name": "spin", "feature_size": config.feature_size}},
        "metrics": {},
    }
    return Checkpoint(model.eval(), replace(table1_3dpw(), model=config), info)


def to_official(model: GLoT, body: Body) -> dict[str, Tensor]:
    """The state dict that the official code would have saved for ``model``: 198 tensors.

    The official evaluation loads strictly, so ``body`` and the unused layers are part of it. Raises InputError where
    the official code has no such model: ``model`` must have the kinematic regressor with the official slices of the
    global pose, the official sizes and both branches.
    """
    official = GLoTConfig(hscr_global_pose="official")
    free = {name: getattr(model.config, name) for name in FREE}
    for name, wanted in vars(replace(official, **free)).items():
        found = getattr(model.config, name)
        if found != wanted and not name.endswith(("dropout", "drop_path")) and name != "positions":
            raise InputError(f"the official code has no model with {name}={found}, only {wanted}")
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
    for name, values in split_estimate(model.mean.detach())._asdict().items():
        state[f"global_modeling.regressor.init_{name}"] = values[None].clone()
    state |= {name: torch.zeros(size) for name, size in DEAD_SHAPES.items()}
    for owner in ("regressor", "global_modeling.regressor"):
        state |= {f"{owner}.smpl.{name}": tensor for name, tensor in _official_body(body).items()}
    return {name: tensor.cpu().contiguous() for name, tensor in state.items()}


def official_name(ours: str) -> str:
    """The official name of one of our parameters."""
    ours = re.sub(r"(blocks\.\d+)\.fc", r"\1.mlp.fc", ours)
    theirs, prefix = next((theirs, prefix) for theirs, prefix in OFFICIAL_NAMES.items() if ours.startswith(prefix))
    return theirs + ours.removeprefix(prefix)


def _official_body(body: Body) -> dict[str, Tensor]:
    """The buffers that smplx's SMPL class has for a body, by name."""
    vertices = len(body.template)
    poses = body.pose_basis if body.pose_basis is not None else torch.zeros(9 * (JOINTS - 1), 3 * vertices)
    return {
        "betas": torch.zeros(BODIES, 10),
        "global_orient": torch.zeros(BODIES, 3),
        "body_pose": torch.zeros(BODIES, 3 * (JOINTS - 1)),
        "faces_tensor": torch.from_numpy(body.faces),
        "v_template": body.template,
        "shapedirs": body.shape_basis.T.reshape(vertices, 3, -1),
        "J_regressor": torch.from_numpy(body.joint_regressor),
        "posedirs": poses,
        "parents": torch.tensor([-1, *body.parents[1:]]),
        "lbs_weights": body.weights,
        "J_regressor_extra": body.regressors[:-17],
        "vertex_joint_selector.extra_joints_idxs": body.vertex_joints,
    }


def write_official(spec: OfficialSpec) -> int:
    """Writes ``spec.checkpoint`` with ``spec.body`` to the file ``spec.out``; returns the number of tensors in it.

    InputError where the model was made with another kind of body, where the official code has no such model, and where
    the file cannot be written.
    """
    saved, body = load_checkpoint(spec.checkpoint), load_body(spec.body)
    require_body(body, saved.info["body"], "model")
    state = to_official(saved.model, body)
    content = {
        "epoch": int(saved.info["step"]) // max(saved.recipe.steps_per_epoch, 1),
        "gen_state_dict": state,
        "performance": float(saved.info["metrics"].get("pa_mpjpe", 0.0)),
        "gen_optimizer": {},
    }
    temporary = temporary_of(spec.out)
    try:
        spec.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, temporary)
        move_in(temporary, spec.out)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
        raise InputError(f"--out {spec.out}: cannot be written ({error}); choose another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return len(state)
