"""The architectures of the temporal models: one frozen dataclass for each, with what each field may be.

``kind`` names the model in a recipe: ``--set model=tcmr``.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from glot.errors import InputError
from glot.settings import Count, Range, Share, check_fields


@dataclass(frozen=True)
class GLoTConfig:
    """GLoT's architecture (paper section 3; sizes from the official release)."""

    kind: Literal["glot"] = "glot"
    feature_size: Count = 2048  # numbers in a feature; a run takes this size from its feature sets
    frames: Annotated[int, Range(4, even=True)] = 16  # T, Table 11
    nearby_frames: Count = 4  # w: the local branch sees T//2-w ... T//2+w, Table 7
    mask_ratio: Share = 0.5  # Table 4
    mask_token: Literal["smpl", "learnable"] = "smpl"  # "smpl": from the mean SMPL parameters, Table 5
    regressor: Literal["hscr", "residual"] = "hscr"  # "hscr": kinematic chain, Table 6
    modules: Literal["gmm+lpc", "gmm"] = "gmm+lpc"  # "gmm": global branch only, Table 3
    detach_global: bool = True  # HSCR sees the global estimate without its gradient, Table 8
    positions: Literal["learned", "sine"] = "learned"  # Table 9
    # "official": the global pose is sliced at offset j instead of 6*j, so joint j sees the numbers j..j+5, and only 29
    # of the 144 numbers are used. Published checkpoints need this. "paper": every joint sees its own 6D rotation.
    hscr_global_pose: Literal["paper", "official"] = "paper"
    # How many middle frames the local branch predicts and is trained on: 1 in the paper, 3 in the official code.
    local_supervised_frames: Literal[1, 3] = 3
    # First weights of the layers whose output corrects an estimate of the body. "official": as large as everywhere
    # else. The first bodies are then far from the mean body, unless the regressor starts from SPIN's weights. "small":
    # a hundredth of that, as in SPIN, so that any training starts near the mean body.
    first_corrections: Literal["small", "official"] = "small"
    width: Count = 512  # width of the tokens of the global branch's encoder
    depth: Count = 2  # layers of the global branch's encoder
    heads: Count = 8  # heads of every attention layer
    decoder_width: Count = 256
    decoder_depth: Count = 1
    local_width: Count = 256
    local_depth: Count = 3
    mlp_ratio: Count = 4  # width of a transformer's hidden layer / width of its tokens
    hidden: Count = 1024  # width of the hidden layers of both regressors
    iterations: Count = 3  # iterations of the iterative regressor
    dropout: Share = 0.1
    drop_path: Share = 0.2
    regressor_dropout: Share = 0.5
    hscr_dropout: Share = 0.25

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        if int(self.frames * (1 - self.mask_ratio)) < 1:
            raise InputError(
                f"model.mask_ratio={self.mask_ratio}: leaves none of {self.frames} frames visible; lower it"
            )
        if not self.nearby_frames < self.frames // 2:
            raise InputError(
                f"model.nearby_frames={self.nearby_frames}: must be 1 to {self.frames // 2 - 1} "
                f"in windows of model.frames={self.frames}"
            )
        used = ("width", "decoder_width", "local_width")[: 3 if self.modules == "gmm+lpc" else 2]
        for name in used:
            width = getattr(self, name)
            if width % self.heads:
                raise InputError(f"model.{name}={width}: must be a multiple of model.heads={self.heads}")
            if self.positions == "sine" and width % 2:
                raise InputError(f"model.{name}={width}: must be even with model.positions=sine")


@dataclass(frozen=True)
class TCMRConfig:
    """TCMR (Choi et al., CVPR 2021): the past, the future and all frames of a window predict its middle frame."""

    kind: Literal["tcmr"] = "tcmr"
    feature_size: Count = 2048  # numbers in a feature; a run takes this size from its feature sets
    frames: Annotated[int, Range(3)] = 16
    gru_width: Count = 1024  # of each direction
    gru_layers: Count = 2
    attention_width: Count = 256
    hidden: Count = 1024  # width of the hidden layers of SPIN's regressor
    iterations: Count = 3  # of the regressor
    regressor_dropout: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "model.")


@dataclass(frozen=True)
class MPSNetConfig:
    """MPS-Net (Wei et al., CVPR 2022): attention by motion (MoCA), then a hierarchy of merged frames (HAFI).

    The three last fields repeat what the released code does. They are needed only to compare with its values.
    """

    kind: Literal["mps_net"] = "mps_net"
    feature_size: Count = 2048  # numbers in a feature; a run takes this size from its feature sets
    frames: Annotated[int, Range(10)] = 16
    attention_width: Count = 256
    hidden: Count = 1024  # width of the hidden layers of SPIN's regressor
    iterations: Count = 3  # of the regressor
    regressor_dropout: Share = 0.5
    # "middle": HAFI merges the frames T//2-4 ... T//2+4. "official": the frames 4 ... 12, whatever T is.
    hafi_frames: Literal["middle", "official"] = "middle"
    # "sample": the two similarities of a window are weighted. "official": the windows of a batch are mixed up, so that
    # a prediction depends on its neighbours in the batch. Published numbers come from batches of 8 windows in order.
    similarities: Literal["sample", "official"] = "sample"
    # "trained": by all losses. "official": the encoder gets no gradient; and the discriminator sees frames whose values
    # are mixed up.
    encoder: Literal["trained", "official"] = "trained"
    discriminator_input: Literal["frames", "official"] = "frames"

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        if self.hafi_frames == "official" and self.frames < 13:
            raise InputError(f"model.frames={self.frames}: must be 13 or more with model.hafi_frames=official")


@dataclass(frozen=True)
class VIBEConfig:
    """VIBE (Kocabas et al., CVPR 2020): a recurrent network along the window predicts all its frames."""

    kind: Literal["vibe"] = "vibe"
    feature_size: Count = 2048  # numbers in a feature; a run takes this size from its feature sets
    frames: Annotated[int, Range(1)] = 16
    gru_width: Count = 1024
    gru_layers: Count = 2
    hidden: Count = 1024  # width of the hidden layers of SPIN's regressor
    iterations: Count = 3  # of the regressor
    regressor_dropout: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "model.")


@dataclass(frozen=True)
class MEVAConfig:
    """MEVA (Luo et al., ACCV 2020): a motion decoded from one vector of the window, then corrected frame by frame."""

    kind: Literal["meva"] = "meva"
    # Where the first pose of the decoded motion comes from. "latent_only": from the frozen decoder (the published
    # weights). "with_first_pose": from layers of the model (the paper).
    variant: Literal["latent_only", "with_first_pose"] = "latent_only"
    feature_size: Count = 2048  # numbers in a feature; a run takes this size from its feature sets
    frames: Annotated[int, Range(1, 90)] = 90
    gru_width: Count = 1024  # of each direction of the feature encoder
    motion_width: Count = 512  # of each direction of the motion encoder
    gru_layers: Count = 2
    latent: Count = 512  # numbers that describe a motion
    vae_hidden: Count = 1024  # hidden width of the layers of the motion VAE
    first_pose_hidden: Count = 256  # hidden width of the layers for the first pose (with_first_pose)
    hidden: Count = 1024  # width of the hidden layers of SPIN's regressor
    iterations: Count = 3  # of the regressor
    regressor_dropout: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "model.")


ModelConfig = GLoTConfig | TCMRConfig | MPSNetConfig | VIBEConfig | MEVAConfig
MODELS: dict[str, type[Any]] = {configured.kind: configured for configured in get_args(ModelConfig)}
