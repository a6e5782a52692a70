"""HMR2.0: a ViT over a crop, and a decoder of one token that looks at it; normalised crops in, the token out.

Source: Goel et al., "Humans in 4D: Reconstructing and Tracking Humans with Transformers", ICCV 2023. The layers have
the names of the released checkpoints. N crops, P = 192 patches of 16 px, C the ViT's width, D the token's.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glot.human.joints import BETAS, JOINTS
from glot.human.rotation import rotmat_to_axis_angle

PATCH, PADDING = 16, 2  # px
HEIGHT, WIDTH = 16, 12  # patches
VIT_HEAD, TOKEN_HEAD = 80, 64  # numbers of an attention head
VIT_EPS, TOKEN_EPS = 1e-6, 1e-5
CUT = 32  # px that are cut off the left and the right of a square crop
CAMERA = 3
LAYERS = ("backbone.", "smpl_head.transformer.")  # those up to the token


@dataclass(frozen=True)
class HMR2Sizes:
    """The sizes of a network. HMR2.0's are the defaults; 670.5 million numbers."""

    width: int = 1280  # C
    depth: int = 32
    mlp: int = 5120
    token: int = 1024  # D
    layers: int = 6
    inner: int = 512  # numbers of all heads of the decoder
    token_mlp: int = 1024


class HMR2(nn.Module):
    """``network(images (N, 3, 256, 256))`` -> tokens (N, D); ``network.guess(tokens)`` -> (N, 85)."""

    def __init__(self, sizes: HMR2Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.backbone = ViT(sizes)
        self.smpl_head = Head(sizes)

    def forward(self, images: Tensor) -> Tensor:
        return self.smpl_head(self.backbone(images[..., CUT:-CUT]))

    def guess(self, tokens: Tensor) -> Tensor:
        """(N, 24 * 3 + 10 + 3) float32: axis-angle poses in rad in the camera frame, betas, cameras (s, tx, ty)."""
        head, tokens = self.smpl_head, tokens.float()
        pose = (head.decpose(tokens) + head.init_body_pose).view(-1, JOINTS, 2, 3)
        first = F.normalize(pose[..., 0, :], dim=-1)
        second = F.normalize(pose[..., 1, :] - (first * pose[..., 1, :]).sum(-1, keepdim=True) * first, dim=-1)
        rotmats = torch.stack((first, second, torch.linalg.cross(first, second)), dim=-1)
        betas, cam = head.decshape(tokens) + head.init_betas, head.deccam(tokens) + head.init_cam
        return torch.cat([rotmat_to_axis_angle(rotmats).flatten(1), betas, cam], dim=1)

    def placed(self, device: str, dtype: torch.dtype) -> "HMR2":
        """A copy on a device in a type of numbers. The layers that read the body from a token stay float32."""
        with torch.device("meta"):
            copy = HMR2(self.sizes)
        types = {name: dtype if name.startswith(LAYERS) else torch.float32 for name in self.state_dict()}
        state = {name: values.to(device, types[name]) for name, values in self.state_dict().items()}
        copy.load_state_dict(state, assign=True)
        return copy.eval().requires_grad_(False)


class ViT(nn.Module):
    """Images (N, 3, 256, 192) -> (N, P, C). The embedding of the class token, which there is not, is added to all."""

    def __init__(self, sizes: HMR2Sizes) -> None:
        super().__init__()
        self.patch_embed: Any = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, sizes.width, PATCH, stride=PATCH, padding=PADDING)
        self.pos_embed = nn.Parameter(torch.zeros(1, HEIGHT * WIDTH + 1, sizes.width))
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.mlp) for _ in range(sizes.depth))
        self.last_norm = nn.LayerNorm(sizes.width, eps=VIT_EPS)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = patches + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)


class Block(nn.Module):
    """(N, P, C) -> the same: attention and an MLP, each after a layer norm and with a residual."""

    def __init__(self, width: int, mlp: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=VIT_EPS), nn.LayerNorm(width, eps=VIT_EPS)
        self.attn = SelfAttention(width)
        self.mlp: Any = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class SelfAttention(nn.Module):
    """(N, P, C) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(part, VIT_HEAD) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Head(nn.Module):
    """(N, P, C) -> tokens (N, D); and the linear layers that read a body from a token."""

    def __init__(self, sizes: HMR2Sizes) -> None:
        super().__init__()
        self.transformer: Any = nn.Module()
        self.transformer.to_token_embedding = nn.Linear(1, sizes.token)
        self.transformer.pos_embedding = nn.Parameter(torch.zeros(1, 1, sizes.token))
        self.transformer.transformer = nn.Module()
        layers = [nn.ModuleList(decoder_layer(sizes)) for _ in range(sizes.layers)]
        self.transformer.transformer.layers = nn.ModuleList(layers)
        self.decpose = nn.Linear(sizes.token, JOINTS * 6)
        self.decshape, self.deccam = nn.Linear(sizes.token, BETAS), nn.Linear(sizes.token, CAMERA)
        self.register_buffer("init_body_pose", torch.zeros(1, JOINTS * 6))
        self.register_buffer("init_betas", torch.zeros(1, BETAS))
        self.register_buffer("init_cam", torch.zeros(1, CAMERA))

    def forward(self, context: Tensor) -> Tensor:
        parts = self.transformer
        # The input is one token with the value 0, so that only the embedding's bias is left of it.
        x = (parts.to_token_embedding.bias + parts.pos_embedding).expand(len(context), 1, -1)
        for attend, look, feed in parts.transformer.layers:
            x = x + attend(x)
            x = x + look(x, context)
            x = x + feed(x)
        return x[:, 0]


def decoder_layer(sizes: HMR2Sizes) -> list[nn.Module]:
    """Self-attention, cross-attention and a feed-forward network, each after a layer norm."""
    return [
        Normed(sizes.token, TokenAttention(sizes)),
        Normed(sizes.token, CrossAttention(sizes)),
        Normed(sizes.token, FeedForward(sizes)),
    ]


class Normed(nn.Module):
    """A function of the normed token; what else it takes is not normed."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(width, eps=TOKEN_EPS), fn

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.fn(self.norm(x), *others)


class TokenAttention(nn.Module):
    """Attention among the tokens (N, 1, D). There is one, whose weight is 1: only its value counts."""

    def __init__(self, sizes: HMR2Sizes) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(sizes.token, 3 * sizes.inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(sizes.inner, sizes.token)])

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out[0](F.linear(x, self.to_qkv.weight.chunk(3)[2]))


class CrossAttention(nn.Module):
    """Attention of the tokens (N, 1, D) over the context (N, P, C)."""

    def __init__(self, sizes: HMR2Sizes) -> None:
        super().__init__()
        self.to_q = nn.Linear(sizes.token, sizes.inner, bias=False)
        self.to_kv = nn.Linear(sizes.width, 2 * sizes.inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(sizes.inner, sizes.token)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        k, v = (heads(part, TOKEN_HEAD) for part in self.to_kv(context).chunk(2, dim=-1))
        seen = F.scaled_dot_product_attention(heads(self.to_q(x), TOKEN_HEAD), k, v)
        return self.to_out[0](seen.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """(N, 1, D) -> the same."""

    def __init__(self, sizes: HMR2Sizes) -> None:
        super().__init__()
        first, last = nn.Linear(sizes.token, sizes.token_mlp), nn.Linear(sizes.token_mlp, sizes.token)
        self.net = nn.ModuleDict({"0": first, "3": last})

    def forward(self, x: Tensor) -> Tensor:
        return self.net["3"](F.gelu(self.net["0"](x)))


def heads(x: Tensor, size: int) -> Tensor:
    """(N, L, H * size) -> (N, H, L, size)."""
    return x.unflatten(-1, (-1, size)).transpose(1, 2)
