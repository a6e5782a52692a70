"""State dicts of the releases of TCMR, MPS-Net, VIBE and MEVA in, models out, and the reverse.

Our layers have the names of the releases. The mean body is a buffer of ours, and three buffers of their regressor.
"""

from math import sqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from glot.errors import InputError
from glot.human.body import Body
from glot.model_configs import MEVAConfig, ModelConfig, MPSNetConfig, TCMRConfig, VIBEConfig
from glot.models.architectures import build
from glot.models.checkpoint import Checkpoint, assign
from glot.models.mps_net import OFFICIAL_MIDDLE, MPSNet
from glot.models.prediction.track_predictors import OFFICIAL_BATCH
from glot.models.released.release_layout import Release, mean_buffers, mean_of, require_official, smpl_buffers
from glot.models.smpl_params import ESTIMATE
from glot.models.temporal_model import TemporalModel
from glot.peer_recipes import PEER_RECIPES

# A tensor that every file of a release has, and no file of another release.
MARKS = {
    "tcmr": "encoder.gru_cur.weight_ih_l0",
    "mps_net": "nonlocalblock.conv_phi.weight",
    "vibe": "encoder.gru.weight_ih_l0",
    "meva": "feat_encoder.gru.weight_ih_l0",
}
RELEASED_AS = {
    "tcmr": "tcmr_table1_3dpw",
    "mps_net": "mps_net_table1_3dpw",
    "vibe": "vibe_table1_3dpw",
    "meva": "meva_published",
}
FRAMES = {"meva": 90}  # of a window in the releases; 16 in the others. No tensor depends on it
SMPL_OWNERS = ("smpl.", "regressor.smpl.")
# Fields of the configurations that may differ from the released model, because its layers are the same.
FREE = (
    *("frames", "regressor_dropout"),
    *("variant", "hafi_frames", "similarities", "encoder", "discriminator_input"),
)


def kind_of(release: Release) -> str | None:
    """The kind of model whose tensors these are; None for none of the four."""
    return next((kind for kind, mark in MARKS.items() if mark in release.state), None)


def peer_checkpoint(release: Release, kind: str) -> Checkpoint:
    """The model of a file of the release of ``kind``. Its sizes are read from its tensors.

    InputError where a tensor is missing, too many, or of a size that does not fit the others.
    """
    config = release.config(_found_config(release, kind), FREE)
    weights = {
        name: tensor for name, tensor in release.state.items() if not name.startswith((*SMPL_OWNERS, "regressor.init_"))
    }
    model = build(config, mean_of(release.state, "regressor", release.path))
    assign(model, weights | {"mean": model.mean}, release.path)
    return release.checkpoint(model, PEER_RECIPES[RELEASED_AS[kind]]())


def peer_state(model: TemporalModel, body: Body) -> dict[str, Tensor]:
    """The state dict that the release would have saved for ``model``, SMPL's buffers included.

    InputError where the release has no such model.
    """
    kind = model.config.kind
    require_official(model.config, type(model.config)(), FREE)
    if isinstance(model, MPSNet) and model.middle != OFFICIAL_MIDDLE:
        raise InputError(
            f"model.frames={model.config.frames}: the official code of MPS-Net predicts frame {OFFICIAL_MIDDLE} of "
            f"every window, this model frame {model.middle}; only a model of 16 or 17 frames can be written"
        )
    state = {name: x.detach().clone() for name, x in model.state_dict().items() if name != "mean"}
    state |= mean_buffers(model.mean.detach(), "regressor")
    # MEVA's model holds SMPL a second time, and does not use it.
    state |= smpl_buffers(body, ("regressor.smpl", "smpl") if kind == "meva" else ("regressor.smpl",))
    return {name: tensor.cpu().contiguous() for name, tensor in state.items()}


def peer_notes(model: TemporalModel) -> list[str]:
    """What somebody who predicts with ``model`` has to know, one line each."""
    if not isinstance(model, MPSNet) or model.config.similarities == "sample":
        return []
    notes = [
        f"MPS-Net as released mixes up the windows of a batch: it predicts batches of {OFFICIAL_BATCH} windows here, "
        "as for its published numbers"
    ]
    if encoder_moved(model):
        return [*notes, "MPS-Net: this encoder was trained (conv_phi, conv_theta, conv_g moved)"]
    return [
        *notes,
        "MPS-Net: this encoder was never trained (conv_phi, conv_theta, conv_g have weights as at the "
        "start), only its regressor",
    ]


def encoder_moved(model: MPSNet) -> bool:
    """Whether training changed the encoder: the first weights are between -1 / sqrt(F) and 1 / sqrt(F)."""
    bound = 1.001 / sqrt(model.config.feature_size)  # a weight that was rounded to float16 is still inside
    block = model.nonlocalblock
    return any(conv.weight.abs().max().item() > bound for conv in (block.conv_phi, block.conv_theta, block.conv_g))


def _found_config(release: Release, kind: str) -> ModelConfig:
    """The configuration whose model has tensors of these sizes. Frames: those of the release."""
    sizes = _Sizes(release.state, release.path)
    fields: dict[str, Any] = {
        "frames": FRAMES.get(kind, 16),
        "feature_size": sizes.of("regressor.fc1.weight", 1) - ESTIMATE,
        "hidden": sizes.of("regressor.fc1.weight", 0),
    }
    try:
        if kind == "tcmr":
            gru = sizes.of_gru("encoder.gru_bef")
            return TCMRConfig(**fields, **gru, attention_width=sizes.of("encoder.attention.fc.weight", 0))
        if kind == "mps_net":
            width = sizes.of("nonlocalblock.attention.fc.weight", 0)
            return MPSNetConfig(**fields, attention_width=width, similarities="official")
        if kind == "vibe":
            return VIBEConfig(**fields, **sizes.of_gru("encoder.gru"))
        return MEVAConfig(
            **fields,
            **sizes.of_gru("feat_encoder.gru"),
            variant="latent_only" if "vae_model.init_pose_out.weight" in release.state else "with_first_pose",
            motion_width=sizes.of("motion_encoder.gru.weight_hh_l0", 1),
            latent=sizes.of("motion_encoder.linear.weight", 0),
            vae_hidden=sizes.of("vae_model.d_mlp.affine_layers.0.weight", 0),
            first_pose_hidden=sizes.of("vae_init_mlp.0.weight", 0),
        )
    except InputError as error:
        raise (error if str(release.path) in str(error) else InputError(f"{release.path}: {error}")) from None


class _Sizes:
    """Reads sizes of layers from a state dict."""

    def __init__(self, state: dict[str, Tensor], path: Path) -> None:
        self.state, self.path = state, path

    def of(self, name: str, axis: int) -> int:
        """The length of an axis of a layer's weights; InputError where there is no such matrix."""
        tensor = self.state.get(name)
        if tensor is None or tensor.ndim != 2:
            found = "missing" if tensor is None else f"{tuple(tensor.shape)}, which is no matrix"
            raise InputError(f"{self.path}: {name} is {found}, so it is not a whole checkpoint")
        return tensor.shape[axis]

    def of_gru(self, name: str) -> dict[str, Any]:
        """The width and the number of layers of a recurrent network."""
        layers = sum(f"{name}.weight_ih_l{number}" in self.state for number in range(len(self.state)))
        return {"gru_width": self.of(f"{name}.weight_hh_l0", 1), "gru_layers": layers}
