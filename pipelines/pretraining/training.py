"""Renders of the open stack in, weights of a ResNet-50 out whose features know poses: from scratch, on labels we made.

Linear heads on the pooled features say 2D keypoints, 3D joints, joint rotations and body shape; they are thrown away.
Crops grow from 64 to 224 px. Every crop follows from the seed and its number: a resumed run sees what it saw.
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
import typer
from safetensors.torch import save_file
from torch import Tensor, nn

from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.resnet50 import FEATURE_SIZE
from glot.human.crop import CROP_SIZE, normalise
from glot.human.joints import COMMON14_IN_SPIN49
from glot.human.rotation import axis_angle_to_rotmat, rot6d_to_rotmat
from glot.scoring.metrics import pa_mpjpe
from pipelines.motions.mocap import load_motions
from pipelines.pretraining.renders import Crop, Renders, fill_cache, take_crop
from pipelines.scenes.sample_dataset import split_clips

VALIDATION_IMAGES = 300
VALIDATION_BATCH = 25
SPREAD_IMAGES = 500
HEADS = {"keypoints2d": (49, 3), "joints3d": (49, 3), "rot6d": (24, 6), "betas": (10,)}
SPREAD = 0.5  # standard deviation that every feature is brought to; those of networks for photographs are much like it
LARGEST_FACTOR = 50.0  # what hardly ever moves stays small
MAPS = {"layer2": 512, "layer3": 1024, "layer4": FEATURE_SIZE}  # the layers that also say heatmaps; their channels


class Stage(NamedTuple):
    """``until`` this share of the progress, crops of ``size`` px, ``batch`` of them in a step."""

    until: float
    size: int
    batch: int


@dataclass(frozen=True)
class Recipe:
    """All that decides what is learnt from the renders. Progress is counted in megapixels of crops, much like time."""

    megapixels: float = 4000.0
    # Features are used at 224 px: the last stage gets used to it.
    stages: tuple[Stage, ...] = (
        Stage(0.2, 64, 64),
        Stage(0.65, 112, 32),
        Stage(0.82, 160, 32),
        Stage(1.0, CROP_SIZE, 32),
    )
    start: str = ""  # hash of the weights it starts from; "" for random ones
    frozen: tuple[str, ...] = ()  # parts of the trunk that stay as they are
    precision: str = "float32"  # or bfloat16: what convolutions are computed in; weights and losses stay float32
    learning_rate: float = 1e-3
    warmup: float = 0.02
    decay_from: float = 0.35  # until here the rate is constant, so a deadline can cut the run anywhere before
    weight_decay: float = 0.02
    seed: int = 0

    def stage(self, progress: float) -> Stage:
        return next((stage for stage in self.stages if progress < stage.until), self.stages[-1])

    def rate(self, progress: float) -> float:
        """Warm-up, plateau, then a cosine down to a hundredth."""
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 0.02)
        fall = min(1.0, max(0.0, (progress - self.decay_from) / (1 - self.decay_from)))
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


def later(recipe: Recipe, *, start: str) -> Recipe:
    """Of a run that starts from the weights of another. It is about the last layers, which say where things are: their
    map has another number of cells at every crop size. The first ones know edges and limbs by then; kept, a step costs
    two thirds."""
    return replace(
        recipe,
        start=start,
        stages=(Stage(1.0, CROP_SIZE, 32),),
        frozen=("conv1", "bn1", "layer1", "layer2"),
        learning_rate=5e-4,
        decay_from=0.15,
    )


class PoseNet(nn.Module):
    """Normalised crops (B, 3, H, W) -> keypoints2d (B, 49, 3: x, y in crop units, logit of being visible),
    joints3d (B, 49, 3) m from the pelvis, rot6d (B, 24, 6) in the camera frame, betas (B, 10); and for layers 2, 3, 4
    heatmaps (B, 49, h, w), logits of where each joint is.

    What is pooled must say where things are, which is learnt slowly; heatmaps teach the layers below much faster.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torchvision.models.resnet50(weights=None)
        self.trunk.fc = nn.Identity()
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURE_SIZE, math.prod(size)) for name, size in HEADS.items()})
        self.maps = nn.ModuleDict({name: nn.Conv2d(size, 49, 1) for name, size in MAPS.items()})
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bn3.weight"):  # branches start weak: the net learns as a shallow one first
                    parameter.fill_(0.25)
                elif name.startswith(("heads.", "maps.")):
                    parameter.normal_(std=0.01) if name.endswith("weight") else parameter.zero_()
            self.get_parameter("heads.rot6d.bias").copy_(torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(24))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        trunk, maps = self.trunk, {}
        x = trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images)))))
        for name in MAPS:
            x = trunk.get_submodule(name)(x)
            if self.training:
                maps[name] = self.maps[name](x)  # (B, 49, h, w)
        features = trunk.avgpool(x).flatten(1)
        return {name: self.heads[name](features).unflatten(-1, shape) for name, shape in HEADS.items()} | maps


def pose_loss(out: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weighted terms, to be added up. L1 for places (their errors have long tails), squares for rotations and shape."""
    points, truth = out["keypoints2d"], target["keypoints2d"]
    visible = truth[..., 2]
    sure = 0.3 + 0.7 * visible  # what is hidden can be guessed, but not well
    inside = (truth[..., :2].abs() < 1).all(-1)
    near = sure * (truth[..., :2].abs() < 1.5).all(-1)
    distance = (points[..., :2] - truth[..., :2]).abs().sum(-1)
    rotmats = rot6d_to_rotmat(out["rot6d"])
    terms = {
        "keypoints2d": (distance * near).sum() / near.sum().clamp(min=1),
        "visible": 0.05 * F.binary_cross_entropy_with_logits(points[..., 2], visible),
        "joints3d": 5 * (out["joints3d"] - target["joints3d"]).abs().sum(-1).mean(),
        "rotmats": (rotmats - target["rotmats"]).square().sum((-1, -2)).mean(),
        "betas": 0.03 * (out["betas"] - target["betas"]).square().mean(),
    }
    for name in MAPS:
        if name in out:
            surprise = heatmap_surprise(out[name], truth[..., :2])
            terms[name] = 0.3 * (surprise * sure * inside).sum() / (sure * inside).sum().clamp(min=1)
    return terms


def heatmap_surprise(logits: Tensor, points: Tensor) -> Tensor:
    """(B, J) cross-entropy in nats of logits (B, J, h, w) with points (B, J, 2) in crop units, each shared among the
    four cells around it in proportion to nearness."""
    height, width = logits.shape[-2:]
    said = logits.flatten(2).log_softmax(-1)
    total = torch.zeros_like(said[..., 0])
    place = (points + 1) / 2 * torch.tensor([width, height], device=points.device) - 0.5
    low = place.floor()
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corner = low + torch.tensor([right, down], device=points.device)
        weight = (1 - (place - corner).abs()).prod(-1)
        x, y = corner[..., 0].clamp(0, width - 1), corner[..., 1].clamp(0, height - 1)
        total = total - weight * said.gather(-1, (y * width + x).long()[..., None]).squeeze(-1)
    return total


def collate(crops: list[Crop], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """Normalised images (B, 3, size, size), channels last, and the targets of ``pose_loss``."""
    images = normalise(torch.from_numpy(np.stack([c.image for c in crops])).to(device))
    target = {
        name: torch.from_numpy(np.stack([getattr(c, name) for c in crops])).to(device)
        for name in ("keypoints2d", "joints3d", "pose", "betas")
    }
    target["rotmats"] = axis_angle_to_rotmat(target.pop("pose"))
    return images.contiguous(memory_format=torch.channels_last), target


class Crops:
    """Random crops of the renders, a batch prepared ahead by threads. Crop k of a run is the same in every run."""

    def __init__(self, renders: Renders, recipe: Recipe, *, threads: int) -> None:
        self.renders, self.recipe = renders, recipe
        self.pool = ThreadPoolExecutor(threads)
        self._ahead: tuple[tuple[int, Stage], list[Future[Crop]]] | None = None

    def batch(self, first: int, stage: Stage) -> list[Crop]:
        """The crops ``first``, ``first`` + 1, ... of the run."""
        jobs = self._ahead[1] if self._ahead and self._ahead[0] == (first, stage) else self._order(first, stage)
        self._ahead = ((first + stage.batch, stage), self._order(first + stage.batch, stage))
        return [job.result() for job in jobs]

    def _order(self, first: int, stage: Stage) -> list[Future[Crop]]:
        return [self.pool.submit(self._crop, number, stage.size) for number in range(first, first + stage.batch)]

    def _crop(self, number: int, size: int) -> Crop:
        epoch, place = divmod(number, len(self.renders))
        index = _shuffled(self.recipe.seed, epoch, len(self.renders))[place]
        return take_crop(self.renders, int(index), size=size, rng=np.random.default_rng([self.recipe.seed, 2, number]))


_order_of: dict[tuple[int, int, int], np.ndarray] = {}


def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    key = (seed, epoch, count)
    if key not in _order_of:
        _order_of[key] = np.random.default_rng([seed, 3, epoch]).permutation(count)
    return _order_of[key]


# --- training


class Run:
    """A run in a folder: ``checkpoint.pt`` to go on from, ``latest.safetensors`` to use, ``log.jsonl`` to read."""

    def __init__(self, out: Path, recipe: Recipe, *, device: torch.device) -> None:
        self.out, self.recipe, self.device = out, recipe, device
        torch.manual_seed(recipe.seed)
        self.net = PoseNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frozen = [self.net.trunk.get_submodule(name) for name in recipe.frozen]
        for part in self.frozen:
            part.requires_grad_(False)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        weights = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)
        self.step, self.crops, self.megapixels, self.seconds = 0, 0, 0.0, 0.0

    def resume(self) -> bool:
        path = self.out / "checkpoint.pt"
        if not path.is_file():
            return False
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # cut or foreign: a reader can fail anywhere
            reason = f"{error} ".splitlines()[0][:120]
            raise InputError(f"{path}: not readable ({reason}); remove it to start over") from None
        if self._identity(json.loads(state["recipe"])) != self._identity(asdict(self.recipe)):
            raise InputError(f"{path}: is of another recipe or seed; choose another --out or remove it")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.crops = state["step"], state["crops"]
        self.megapixels, self.seconds = state["megapixels"], state["seconds"]
        return True

    @staticmethod
    def _identity(recipe: dict[str, Any]) -> str:
        """All of a recipe but its length (a run may be made longer, as long as its rate has not begun to fall) and its
        precision (it may go on on another machine)."""
        return json.dumps({key: value for key, value in recipe.items() if key not in ("megapixels", "precision")})

    def save(self) -> None:
        state = {
            "recipe": json.dumps(asdict(self.recipe)),
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "crops": self.crops,
            "megapixels": self.megapixels,
            "seconds": self.seconds,
        }
        partial = self.out / "checkpoint.pt.partial"
        torch.save(state, partial)
        partial.rename(self.out / "checkpoint.pt")
        export(self.net.trunk, self.out / "latest.safetensors")

    def train_step(self, crops: list[Crop], *, rate: float) -> dict[str, float]:
        self.net.train()
        for part in self.frozen:
            part.eval()  # or its batch norms would go on averaging
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, target = collate(crops, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            out = self.net(images)
        terms = pose_loss({name: value.float() for name, value in out.items()}, target)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.crops += len(crops)
        self.megapixels += len(crops) * crops[0].image.shape[0] ** 2 / 1e6
        return {"loss": float(loss.detach())} | {name: float(term.detach()) for name, term in terms.items()}

    @torch.no_grad()
    def validate(self, renders: Renders, *, size: int) -> float:
        """PA-MPJPE in mm of the 3D head, 14 joints, on clips that are not trained on."""
        self.net.eval()
        pred, truth = [], []
        for start in range(0, len(renders), VALIDATION_BATCH):
            numbers = range(start, min(start + VALIDATION_BATCH, len(renders)))
            images, target = collate([take_crop(renders, i, size=size) for i in numbers], self.device)
            pred.append(self.net(images)["joints3d"][:, COMMON14_IN_SPIN49].cpu())
            truth.append(target["joints3d"][:, COMMON14_IN_SPIN49].cpu())
        return float(pa_mpjpe(torch.cat(pred).numpy(), torch.cat(truth).numpy()).mean() * 1000)

    def log(self, **values: Any) -> None:
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}) + "\n")


def export(trunk: nn.Module, path: Path) -> None:
    """The trunk as safetensors: convolutions in float16, batch norms in float32 (small variances would underflow)."""
    state = {
        key: value.detach().cpu().to(torch.float16 if value.ndim > 1 else torch.float32).contiguous()
        for key, value in trunk.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    partial = path.with_name(f"{path.name}.partial")
    save_file(state, partial, metadata={"format": "pt", "architecture": "torchvision resnet50 without fc"})
    partial.rename(path)


@torch.no_grad()
def feature_spread(trunk: nn.Module, renders: Renders, *, device: torch.device) -> Tensor:
    """(2048,) standard deviations of the features of some hundred pictures."""
    trunk.eval()
    features = []
    for start in range(0, min(SPREAD_IMAGES, len(renders)), VALIDATION_BATCH):
        numbers = range(start, min(start + VALIDATION_BATCH, len(renders)))
        images, _ = collate([take_crop(renders, i, size=CROP_SIZE) for i in numbers], device)
        features.append(trunk(images))
    return torch.cat(features).std(0)


@torch.no_grad()
def scale_features(trunk: nn.Module, factors: Tensor) -> None:
    """Multiplies every feature by its positive factor (2048,), exactly: a ReLU lets it through, so the last layer's
    norms and what reads them can be changed to the same effect.

    Training leaves most features within a few hundredths. What reads them, linear layers drawn at random beside
    positions of size one, would have to learn first that there is anything.
    """
    for block in trunk.get_submodule("layer4").children():
        norms = [block.get_submodule("bn3")]
        if isinstance(shortcut := getattr(block, "downsample", None), nn.Sequential):
            norms.append(shortcut[1])
        else:  # reads what the block before has scaled
            block.get_parameter("conv1.weight").div_(factors[:, None, None])
        for norm in norms:
            norm.get_parameter("weight").mul_(factors)
            norm.get_parameter("bias").mul_(factors)


def train(run: Run, crops: Crops, validation: Renders, *, hours: float | None, save_every: float) -> Iterator[str]:
    """Trains to the end of the recipe, or of the ``hours`` if these end first; yields a line to show now and then."""
    recipe, began = run.recipe, time.monotonic() - run.seconds
    saved = said = time.monotonic()
    images = 0
    while True:
        run.seconds = time.monotonic() - began
        # With a deadline the whole schedule (crop sizes, decay) is pressed into the time there is.
        progress = max(run.megapixels / recipe.megapixels, run.seconds / (3600 * hours) if hours else 0.0)
        if progress >= 1:
            break
        stage = recipe.stage(progress)
        losses = run.train_step(crops.batch(run.crops, stage), rate=recipe.rate(progress))
        if not math.isfinite(losses["loss"]):
            raise FloatingPointError(f"the loss is {losses['loss']} at step {run.step}; go on from a checkpoint")
        images += stage.batch
        run.log(step=run.step, progress=progress, size=stage.size, **losses)
        now = time.monotonic()
        if now - said > 20 or run.step == 1:
            yield (
                f"{progress:6.1%} of the run, step {run.step}, {stage.size} px, {images / (now - said):.0f} images/s, "
                f"loss {losses['loss']:.3f} (3D {losses['joints3d'] * 200:.0f} mm)"
            )
            said, images = now, 0
        if now - saved > save_every:
            run.save()
            yield _validated(run, validation, stage.size)
            saved = said = time.monotonic()
            images = 0
    run.save()
    yield _validated(run, validation, CROP_SIZE)


def _validated(run: Run, validation: Renders, size: int) -> str:
    error = run.validate(validation, size=size)
    run.log(step=run.step, validation_size=size, validation_pa_mm=error, seconds=run.seconds)
    return f"saved; 3D head on held-out clips at {size} px: PA-MPJPE {error:.1f} mm"


def best_precision(device: str) -> str:
    """bfloat16 where there are instructions for it, which doubles the speed; without them it is slower."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def main(
    out: Annotated[Path, typer.Option(help="folder for all it makes; an unfinished run is continued")],
    images: Annotated[int, typer.Option(help="pictures to render, 30 ms of a core and 25 KB each", min=100)] = 24_000,
    hours: Annotated[
        float | None, typer.Option(help="training ends by then, its schedule shortened; left out: the whole recipe")
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed gives the same renders, crops and first weights", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; on a GPU batches are larger")] = "cpu",
    motions: Annotated[
        Path | None, typer.Option(help=".bvh or .npz file, or a folder of them; left out: the shipped clips")
    ] = None,
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; left out: the open body")] = None,
    workers: Annotated[int | None, typer.Option(help="processes and threads; left out: one a core", min=1)] = None,
    megapixels: Annotated[
        float,
        typer.Option(help="crops to train on, millions of pixels (4000: about two hours on two cores)", min=0.001),
    ] = Recipe.megapixels,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16; left out: bfloat16 where the chip has instructions for it")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="weights to go on from (another run's safetensors): at 224 px, its first layers kept, heads anew"
        ),
    ] = None,
    save_minutes: Annotated[float, typer.Option(help="between checkpoints", min=0.0)] = 4.0,
) -> None:
    """Trains the ResNet-50 whose features the open stack uses, from scratch, on rendered people only.

    Renders are made first and kept in OUT/renders, from the training clips; clips of the validation and test splits are
    never trained on. OUT/latest.safetensors can be used from the first checkpoint on, OUT/resnet50.safetensors is
    the finished one. Stop it when you like: the same command goes on.

    `python -m pipelines.pretrain_backbone --out runs/backbone --hours 2`

    `python pipelines/extract_features.py --weights runs/backbone/resnet50.safetensors ...`
    """
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device {device}: not here; there is cpu" + (", cuda" if torch.cuda.is_available() else ""))
    if precision not in (None, "float32", "bfloat16"):
        raise InputError(f"--precision {precision}: there is float32 and bfloat16")
    begun = load_backbone(weights=start) if start else None
    workers = workers or len(os.sched_getaffinity(0))
    clips = load_motions(motions)
    splits = split_clips(sorted(clips), seed=seed)
    caches = {
        split: fill_cache(
            out / "renders" / split,
            count,
            seed=seed,
            clips={name: clips[name] for name in splits[split]},
            body=body,
            varied=split == "train",
            workers=workers,
        )
        for split, count in (("validation", min(VALIDATION_IMAGES, images)), ("train", images))
    }
    recipe = Recipe(megapixels=megapixels, seed=seed, precision=precision or best_precision(device))
    if begun:
        recipe = later(recipe, start=begun.hash)
    if device == "cuda":
        stages = tuple(stage._replace(batch=256) for stage in recipe.stages)
        recipe = replace(recipe, stages=stages, learning_rate=2e-3)
    run = Run(out, recipe, device=torch.device(device))
    if begun:
        assert begun.module is not None  # a ResNet-50 is a module of torch
        run.net.trunk.load_state_dict(begun.module.state_dict())
    if run.resume():
        print(f"{out / 'checkpoint.pt'}: going on from step {run.step}", file=sys.stderr)
    crops = Crops(caches["train"], recipe, threads=workers)
    for line in train(run, crops, caches["validation"], hours=hours, save_every=60 * save_minutes):
        print(line, file=sys.stderr, flush=True)
    spread = feature_spread(run.net.trunk, caches["train"], device=run.device)
    scale_features(run.net.trunk, SPREAD / spread.clamp(min=SPREAD / LARGEST_FACTOR))
    export(run.net.trunk, out / "resnet50.safetensors")
    print(f"{out / 'resnet50.safetensors'}: {run.step} steps, {run.seconds / 3600:.2f} h; see benchmarks/probe.py")
