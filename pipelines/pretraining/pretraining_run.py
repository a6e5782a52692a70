"""A training run in a folder: the network, the optimiser, a step, the error on validation, checkpoints, a log.

A run that is started again continues from its checkpoint and sees the crops that it would have seen.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glot.errors import InputError
from glot.human.joints import COMMON14_IN_SPIN49
from glot.location import move_in, temporary_of
from glot.scoring.metrics import pa_mpjpe
from pipelines.pretraining.backbone_export import write_weights
from pipelines.pretraining.pose_loss import pose_loss
from pipelines.pretraining.pose_net import PoseNet
from pipelines.pretraining.recipe import PretrainingRecipe
from pipelines.pretraining.renders import Renders
from pipelines.pretraining.training_crops import LabelledCrop, collate, take_crop

VALIDATION_BATCH = 25


class PretrainingRun:
    """A run in a folder: ``checkpoint.pt`` to continue from, ``latest.safetensors`` to use, ``log.jsonl`` to read."""

    def __init__(self, out: Path, recipe: PretrainingRecipe, *, device: torch.device) -> None:
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

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def resume(self) -> bool:
        """Loads the checkpoint, and returns whether there was one.

        Raises InputError for a checkpoint that is damaged or was made with another recipe.
        """
        if not self.checkpoint.is_file():
            return False
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:  # a damaged or foreign file can make the reader fail anywhere
            reason = f"{error} ".splitlines()[0][:120]
            raise InputError(f"{self.checkpoint}: not readable ({reason}); delete this file to start over") from None
        if self._identity(json.loads(state["recipe"])) != self._identity(asdict(self.recipe)):
            raise InputError(
                f"{self.checkpoint}: was made with another recipe or seed; choose another --out, or delete this file"
            )
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.crops = state["step"], state["crops"]
        self.megapixels, self.seconds = state["megapixels"], state["seconds"]
        return True

    @staticmethod
    def _identity(recipe: dict[str, Any]) -> str:
        """What must be equal in a resumed run: all but the length (a run may be made longer, as long as its learning
        rate has not begun to fall) and the precision (a run may continue on another machine)."""
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
        temporary = temporary_of(self.checkpoint)
        torch.save(state, temporary)
        move_in(temporary, self.checkpoint)
        write_weights(self.net.trunk, self.out / "latest.safetensors")

    def train_step(self, crops: list[LabelledCrop], *, rate: float) -> dict[str, float]:
        """One step with the learning rate ``rate``; the loss and its terms."""
        self.net.train()
        for part in self.frozen:
            part.eval()  # so that batch norms keep their averages
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
