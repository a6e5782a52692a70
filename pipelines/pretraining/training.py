"""The options of pretrain_backbone in, weights of a ResNet-50 out: renders, recipe, and the training loop."""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from glot.cores import available_cores
from glot.errors import InputError
from glot.features.backbones.resnet50 import load_resnet50, trunk_hash
from glot.human.crop import CROP_SIZE
from pipelines.motions.mocap import load_motions
from pipelines.pretraining.backbone_export import equalise_features, write_weights
from pipelines.pretraining.pretraining_run import PretrainingRun
from pipelines.pretraining.recipe import PretrainingRecipe, continued, on_a_gpu
from pipelines.pretraining.renders import Renders, fill_cache
from pipelines.pretraining.spec import PretrainSpec
from pipelines.pretraining.training_crops import CropLoader
from pipelines.scenes.render_processes import RenderSource
from pipelines.scenes.sequence_plan import split_clips

VALIDATION_IMAGES = 300
REPORT_SECONDS = 20  # time between two lines of progress
FINISHED = "resnet50.safetensors"


def pretrain(spec: PretrainSpec) -> PretrainingRun:
    """Renders, trains and writes the finished weights; continues an unfinished run. Prints progress on stderr."""
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU on this machine; give cpu")
    start = load_resnet50(spec.start)[0] if spec.start else None
    workers = spec.workers or available_cores()
    renders = _render(spec, workers=workers)
    run = PretrainingRun(spec.out, recipe_for(spec, start), device=torch.device(spec.device))
    if start is not None:
        run.net.trunk.load_state_dict(start.state_dict())
    if run.resume():
        print(f"{run.checkpoint}: continues from step {run.step}", file=sys.stderr)
    crops = CropLoader(renders["train"], run.recipe, threads=workers)
    for line in train(run, crops, renders["validation"], hours=spec.hours, save_every=60 * spec.save_minutes):
        print(line, file=sys.stderr, flush=True)
    equalise_features(run.net.trunk, renders["train"], device=run.device)
    write_weights(run.net.trunk, spec.out / FINISHED)
    return run


def _render(spec: PretrainSpec, *, workers: int) -> dict[str, Renders]:
    """The renders of the training clips, with varied poses, and of the validation clips, with poses as recorded."""
    clips = load_motions(spec.motions)
    splits = split_clips(sorted(clips), seed=spec.seed)
    return {
        split: fill_cache(
            spec.out / "renders" / split,
            count,
            RenderSource(spec.body, {name: clips[name] for name in splits[split]}),
            seed=spec.seed,
            varied=split == "train",
            workers=workers,
        )
        for split, count in (("validation", min(VALIDATION_IMAGES, spec.images)), ("train", spec.images))
    }


def recipe_for(spec: PretrainSpec, start: nn.Module | None) -> PretrainingRecipe:
    precision = spec.precision or best_precision(spec.device)
    recipe = PretrainingRecipe(megapixels=spec.megapixels, seed=spec.seed, precision=precision)
    if start is not None:
        recipe = continued(recipe, start=trunk_hash(start.state_dict()))
    return on_a_gpu(recipe) if spec.device == "cuda" else recipe


def best_precision(device: str) -> str:
    """bfloat16 if the device has instructions for it, which double the speed. Without them, float32 is faster."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def train(
    run: PretrainingRun, crops: CropLoader, validation: Renders, *, hours: float | None, save_every: float
) -> Iterator[str]:
    """Trains to the end of the recipe, or for ``hours`` if that is shorter; yields lines of progress to show.

    ``save_every``: seconds between checkpoints.
    """
    recipe, began = run.recipe, time.monotonic() - run.seconds
    last_saved = last_reported = time.monotonic()
    images = 0
    while True:
        run.seconds = time.monotonic() - began
        # With a deadline, the whole schedule (crop sizes, decay) is compressed into the available time.
        progress = max(run.megapixels / recipe.megapixels, run.seconds / (3600 * hours) if hours else 0.0)
        if progress >= 1:
            break
        stage = recipe.stage(progress)
        losses = run.train_step(crops.batch(run.crops, stage), rate=recipe.rate(progress))
        if not math.isfinite(losses["loss"]):
            raise FloatingPointError(f"the loss is {losses['loss']} at step {run.step}; continue from a checkpoint")
        images += stage.batch
        run.log(step=run.step, progress=progress, size=stage.size, **losses)
        now = time.monotonic()
        if now - last_reported > REPORT_SECONDS or run.step == 1:
            yield (
                f"{progress:6.1%} of the run, step {run.step}, {stage.size} px, "
                f"{images / (now - last_reported):.0f} images/s, loss {losses['loss']:.3f} "
                f"(3D {losses['joints3d'] * 200:.0f} mm)"
            )
            last_reported, images = now, 0
        if now - last_saved > save_every:
            run.save()
            yield _validated(run, validation, stage.size)
            last_saved = last_reported = time.monotonic()
            images = 0
    run.save()
    yield _validated(run, validation, CROP_SIZE)


def _validated(run: PretrainingRun, validation: Renders, size: int) -> str:
    """Validates, logs the error, and returns the line to show."""
    error = run.validate(validation, size=size)
    run.log(step=run.step, validation_size=size, validation_pa_mm=error, seconds=run.seconds)
    return f"saved; 3D head on held-out clips at {size} px: PA-MPJPE {error:.1f} mm"
