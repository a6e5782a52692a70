"""A run of the motion VAE from its spec to its results: open the folder, take the steps, keep the best, conclude.

A run is in rounds of some steps. After a round, the errors on held out motions are computed and a checkpoint is saved.
The number of a step decides all that is random in it. So a run that was stopped at any moment, and is continued, takes
the same steps as a run that was never stopped.
"""

import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glot.errors import InputError
from glot.features.motion_sets import MotionSet
from glot.location import remove_temporaries
from glot.models.parts.motion_vae import MotionVAE, vae_losses
from glot.models.vae_files import BEST, save_vae
from glot.training.record.progress import duration
from glot.training.run_state import FINISHED, RUNNING, STATE, claim, disk_errors, held, read_state, remove, write_state
from glot.training.step_checkpoints import recover, saving, steps_folder
from glot.training.vae.motion_errors import errors_of_mean_pose, errors_of_still_pose, joint_errors, named
from glot.training.vae.motion_windows import FRAMES, MotionWindows
from glot.training.vae.spec import TrainVAESpec
from glot.training.vae.vae_checkpoints import load_progress, save_progress
from glot.training.vae.vae_curves import JOINT_TABLE, PICTURE, TABLE, write_curves, write_joints

CLIP_NORM = 5.0  # of the gradient, as in the release
SAMPLE = 256  # windows that the mean pose is computed of
NOISE = 9  # part of the seed
PARTS = ("steps", BEST, STATE, TABLE, PICTURE, JOINT_TABLE)  # what --fresh deletes
IDENTITY = ("vae", "motions")


@dataclass
class VAERun:
    """A run whose folder is held. ``rounds``: the numbers of the rounds that are done."""

    spec: TrainVAESpec
    windows: MotionWindows
    motions: dict[str, str]  # the key of each set
    vae: MotionVAE
    optimiser: torch.optim.Optimizer
    device: torch.device
    rounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.spec.run_folder


def train_vae(spec: TrainVAESpec) -> dict[str, float]:
    """Trains the motion VAE, and returns the numbers of its best round; OUT gets best/, epochs.csv and epochs.png.

    If OUT holds an unfinished run, it continues (with ``spec.resume``). If the run there is finished, its numbers are
    returned at once. InputError for what the user has to change; NotNowError where another process holds OUT, or a disk
    fails.
    """
    out = spec.run_folder
    device = device_of(spec)
    torch.set_num_threads(spec.threads)
    with disk_errors(out):
        sets = {name: MotionSet.open(file) for name, file in spec.files.items()}
        motions = {name: motion_set.facts.key for name, motion_set in sets.items()}
        windows = MotionWindows(
            list(sets.values()), seed=spec.seed, reverses=spec.variant == "latent_only", long_only=spec.long_only
        )
        with held(out, what="run"):
            if spec.fresh:
                remove(out, PARTS)
            recover(out)
            for name in (STATE, TABLE, PICTURE, JOINT_TABLE):
                remove_temporaries(out / name)
            new = {"vae": spec.identity, "motions": motions, "status": RUNNING}
            state = claim(out / STATE, new, what="run", identity=IDENTITY, resume=spec.resume)
            if state["status"] == FINISHED:
                print(f"{out}: already trained, nothing to do (--fresh trains it again)")
            else:
                take_rounds(start_or_resume(spec, windows, motions, device))
            shutil.rmtree(steps_folder(out), ignore_errors=True)
            return dict(read_state(out)["metrics"])


def device_of(spec: TrainVAESpec) -> torch.device:
    """The GPU, if there is one and ``spec`` does not refuse it; else the CPU."""
    there = spec.gpus != 0 and torch.cuda.is_available()
    if spec.gpus and not there:
        raise InputError("--gpus 1: torch sees no GPU here; leave it out to train on the CPU")
    return torch.device("cuda" if there else "cpu")


def start_or_resume(
    spec: TrainVAESpec, windows: MotionWindows, motions: dict[str, str], device: torch.device
) -> VAERun:
    """The run as its last checkpoint left it, or a new one."""
    torch.manual_seed(spec.seed)
    vae = MotionVAE(spec.variant, latent=spec.latent, hidden=spec.hidden).to(device)
    optimiser = torch.optim.Adam(vae.parameters(), lr=spec.lr, fused=True)
    step, progress = load_progress(spec.run_folder, vae, optimiser)
    if step:
        print(f"continues after step {step} of {spec.steps}", flush=True)
    return VAERun(spec, windows, motions, vae, optimiser, device, progress.get("rounds", []))


def take_rounds(run: VAERun) -> None:
    """Takes the steps that are left, and completes the run's folder."""
    spec, windows = run.spec, run.windows
    known = windows.held_windows()
    mean_pose, still = errors_of_mean_pose(windows.sample(SAMPLE), known), errors_of_still_pose(known)
    constant = named(mean_pose, "mean_pose_") | named(still, "still_")
    print(
        f"{len(windows.train)} motions, {sum(clip.frames for clip in windows.train)} frames; held out: "
        f"{len(windows.held)} motions, {len(known)} windows, mean pose {constant['mean_pose_error']:.1f} degrees, each "
        f"window's mean pose {constant['still_error']:.1f}",
        flush=True,
    )
    done = first = int(run.rounds[-1]["step"]) if run.rounds else 0
    begun = time.monotonic()
    while done < spec.steps:
        stop = min(done + spec.round_steps, spec.steps)
        losses = [take_step(run, step) for step in range(done, stop)]
        means = {f"train_{name}": math.fsum(row[name] for row in losses) / len(losses) for name in losses[0]}
        errors = joint_errors(run.vae, known, run.device)
        done, numbers = stop, {"epoch": len(run.rounds) + 1, "step": stop, **means, **named(errors, "val_"), **constant}
        best = min((row["val_error"] for row in run.rounds), default=math.inf)
        run.rounds.append(numbers)
        if numbers["val_error"] < best:
            with saving(run.out / BEST) as folder:
                save_vae(folder, run.vae, about(run, numbers))
            columns = {"vae": errors, "mean_pose": mean_pose, "window_mean_pose": still}
            write_joints({name: values.tolist() for name, values in columns.items()}, run.out)
        save_progress(run.out, run.vae, run.optimiser, {"rounds": run.rounds}, step=done)
        left = (time.monotonic() - begun) / (done - first) * (spec.steps - done)
        print(
            f"step {done}/{spec.steps}  loss {means['train_loss']:.1f}  held out {numbers['val_error']:.2f} degrees, "
            f"without the root {numbers['val_joints']:.2f}  about {duration(left)} left",
            flush=True,
        )
    write_curves(run.rounds, run.out)
    metrics = min(run.rounds, key=lambda row: row["val_error"])
    write_state(run.out / STATE, {**read_state(run.out), "status": FINISHED, "metrics": metrics})


def take_step(run: VAERun, step: int) -> dict[str, float]:
    """Takes step number ``step`` (0-based); returns the loss and its terms. InputError where they are not finite."""
    spec, vae = run.spec, run.vae
    motion = run.windows.batch(step, spec.batch).to(run.device)
    rng = np.random.default_rng([spec.seed, NOISE, step])
    noise = torch.from_numpy(rng.standard_normal((spec.batch, spec.latent), np.float32)).to(run.device)
    mu, logvar = vae.encode(motion)
    terms = vae_losses(vae.reconstruct(motion, mu + noise * (0.5 * logvar).exp()), motion, mu, logvar)
    loss: Tensor = torch.stack(list(terms.values())).sum()
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), CLIP_NORM)
    values = {"loss": float(loss.detach())} | {name: float(term.detach()) for name, term in terms.items()}
    if not math.isfinite(values["loss"]) or not math.isfinite(norm):
        raise InputError(
            f"{run.out}: the loss is {values['loss']:g} and its gradient {float(norm):g} at step {step + 1}; start "
            "over with a lower --lr"
        )
    for group in run.optimiser.param_groups:
        group["lr"] = spec.lr * rate_factor(step, spec.steps)
    run.optimiser.step()
    return values


def rate_factor(step: int, steps: int) -> float:
    """The part of the learning rate at a step: 1 to the middle, then linearly down, as the release does by epochs."""
    middle = steps // 2
    return 1 - max(0, step - middle) / (steps - middle + 1)


def about(run: VAERun, metrics: dict[str, float]) -> dict[str, Any]:
    """What config.json of the result says, besides the sizes."""
    named_motions = {"motions": run.motions, "held_out": sorted(clip.name for clip in run.windows.held)}
    options = {"training": run.spec.identity}
    return {"frames": FRAMES, **named_motions, **options, "metrics": metrics, "step": int(metrics["step"])}
