"""How well a backbone's features describe poses: a linear probe from features to 24 joints, on new clips and bodies.

Prints a table and writes benchmarks/out/probe.json: ``{"mean_pose": {"pa_mm", "mpjpe_mm"}, "random": …, "open": …}``.
"""

import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from figures import OUT, write_figures

from glot import cli
from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS
from glot.features.backbones.extractor import Extractor
from glot.human.body import Body, load_body
from glot.human.rotation import axis_angle_to_rotmat
from glot.scoring.linear_probe import LinearProbe
from glot.scoring.metrics import mpjpe, pa_mpjpe
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import PELVIS
from pipelines.pretraining.renders import Renders, fill_cache
from pipelines.pretraining.training_crops import take_crop
from pipelines.scenes.render_processes import RenderSource
from pipelines.scenes.sequence_plan import split_clips

SEED = 1000  # seed of the renders: bodies, cameras and clothes differ from pretraining, which has another seed
BATCH = 16


def smpl_joints(pose: np.ndarray, betas: np.ndarray, body: Body) -> np.ndarray:
    """(N, 24, 3) joints in the camera frame, metres from the pelvis, of poses (N, 24, 3) rad and betas (N, 10)."""
    joints = []
    with torch.inference_mode():
        for start in range(0, len(pose), 64):
            rotmats = axis_angle_to_rotmat(torch.from_numpy(pose[start : start + 64]))
            joints.append(body(rotmats, torch.from_numpy(betas[start : start + 64])).smpl_joints)
    out = torch.cat(joints).double().numpy()
    return out - out[:, [PELVIS]]


def features_of(renders: Renders, backbone: Backbone, *, device: str, what: str) -> np.ndarray:
    """(N, F) features of the crops, which are the same as in extraction."""
    extract = Extractor(backbone, device=device)
    batches = [range(s, min(s + BATCH, len(renders))) for s in range(0, len(renders), BATCH)]
    return np.concatenate(
        [
            extract(np.stack([take_crop(renders, i, size=backbone.crop_rule.size).image for i in numbers]))
            for numbers in cli.progress(batches, total=len(batches), what=what)
        ]
    )


def probe(features: dict[str, np.ndarray], joints: dict[str, np.ndarray]) -> dict[str, float]:
    """Errors in mm on "test" of a linear probe learnt on "train", with the regularisation chosen on "validation"."""
    linear = LinearProbe(*([(features[split], joints[split])] for split in ("train", "validation")))
    return errors(linear(features["test"]), joints["test"])


def errors(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """In mm, means over frames."""
    return {
        "pa_mm": round(float(pa_mpjpe(pred, truth).mean()) * 1000, 2),
        "mpjpe_mm": round(float(mpjpe(pred, truth, pelvis=(PELVIS,)).mean()) * 1000, 2),
    }


def renders_of(counts: dict[str, int]) -> dict[str, Renders]:
    """Renders of the clips of each split; ``counts`` are their numbers."""
    clips = load_motions()
    return {
        split: fill_cache(
            OUT / "probe" / split,
            counts[split],
            RenderSource(None, {name: clips[name] for name in names}),
            seed=SEED,
            varied=split == "train",  # the probe learns on varied poses, as in pretraining; tests have recorded poses
            workers=len(os.sched_getaffinity(0)),
        )
        for split, names in split_clips(sorted(clips), seed=0).items()
    }


def main(
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="Also measure this file (safetensors, torchvision, SPIN); may be repeated."),
    ] = None,
    blazepose: Annotated[bool, typer.Option("--blazepose", help="Also measure BlazePose's features.")] = False,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "probe.json",
    train_images: Annotated[int, typer.Option(help="Number of renders to learn the probe on.", min=100)] = 3000,
    test_images: Annotated[
        int, typer.Option(help="Number of renders to measure it on. 200 more choose its regularisation.", min=100)
    ] = 500,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Learn a linear map from frozen features to 24 joints on some clips, and measure it on other clips.

    The mean pose, random weights and the open weights are always included, for comparison. Each backbone takes about
    two minutes on two cores. The renders are kept in benchmarks/out/probe.

    `python benchmarks/probe.py --weights spin_model_checkpoint.pth.tar`
    """
    missing = [path for path in weights or [] if not path.is_file()]
    if missing:
        raise InputError(f"--weights {missing[0]}: no such file")
    backbones = {"random": load_backbone(weights=RANDOM_WEIGHTS), "open": load_backbone()}
    if blazepose:
        backbones["blazepose"] = load_backbone("blazepose")
    for path in weights or []:
        backbones[str(path)] = load_backbone(weights=path)
    renders = renders_of({"train": train_images, "validation": 200, "test": test_images})
    body = load_body()
    joints = {split: smpl_joints(cache.labels["pose"], cache.labels["betas"], body) for split, cache in renders.items()}
    mean_pose = np.broadcast_to(joints["train"].mean(0), joints["test"].shape)
    figures = {"mean_pose": errors(mean_pose, joints["test"])}
    for name, backbone in backbones.items():
        began = time.perf_counter()
        features = {
            split: features_of(cache, backbone, device=device, what=f"{name}, {split}")
            for split, cache in renders.items()
        }
        figures[name] = probe(features, joints) | {"seconds": round(time.perf_counter() - began, 1)}
    print(f"linear probe on {test_images} renders of held-out clips and bodies   PA-MPJPE    MPJPE  (mm, 24 joints)")
    for name, row in figures.items():
        print(f"{name[-60:]:>60}  {row['pa_mm']:9.1f} {row['mpjpe_mm']:8.1f}")
    write_figures(out, figures, show=False)


if __name__ == "__main__":
    cli.run(main)
