"""What decides the result of pretraining: crop sizes, batches, learning rate, length."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from glot.human.crop import CROP_SIZE
from pipelines.pretraining.spec import MEGAPIXELS


class CropStage(NamedTuple):
    """Until this share of the progress, a step takes ``batch`` crops of ``size`` px."""

    until: float
    size: int
    batch: int


@dataclass(frozen=True)
class PretrainingRecipe:
    """Everything that decides what is learnt, except the renders. Progress is counted in megapixels of crops, because a
    megapixel takes about the same time at every crop size. Checkpoints have these fields: their names must not change.
    """

    megapixels: float = MEGAPIXELS
    # Features are used at 224 px, so the last stage trains at that size.
    stages: tuple[CropStage, ...] = (
        CropStage(0.2, 64, 64),
        CropStage(0.65, 112, 32),
        CropStage(0.82, 160, 32),
        CropStage(1.0, CROP_SIZE, 32),
    )
    start: str = ""  # hash of the weights that training starts from; "" for random ones
    frozen: tuple[str, ...] = ()  # parts of the trunk that are not trained
    precision: str = "float32"  # or bfloat16, for the network only; weights and losses stay float32
    learning_rate: float = 1e-3
    warmup: float = 0.02
    decay_from: float = 0.35  # the progress at which the rate begins to fall; until then, a run can be shortened
    weight_decay: float = 0.02
    seed: int = 0

    def stage(self, progress: float) -> CropStage:
        return next((stage for stage in self.stages if progress < stage.until), self.stages[-1])

    def rate(self, progress: float) -> float:
        """Learning rate: warm-up, plateau, then a cosine down to a hundredth."""
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 0.02)
        fall = min(1.0, max(0.0, (progress - self.decay_from) / (1 - self.decay_from)))
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


def continued(recipe: PretrainingRecipe, *, start: str) -> PretrainingRecipe:
    """The recipe for a run that starts from the weights of another one, with the hash ``start``.

    Such a run trains the last layers. Their maps have another size at every crop size, so they have to learn again
    where the joints are. The first layers detect edges and limbs already; they are frozen, which saves a third of the
    time.
    """
    return replace(
        recipe,
        start=start,
        stages=(CropStage(1.0, CROP_SIZE, 32),),
        frozen=("conv1", "bn1", "layer1", "layer2"),
        learning_rate=5e-4,
        decay_from=0.15,
    )


def on_a_gpu(recipe: PretrainingRecipe) -> PretrainingRecipe:
    """The recipe with the batches and the learning rate for a GPU."""
    stages = tuple(stage._replace(batch=256) for stage in recipe.stages)
    return replace(recipe, stages=stages, learning_rate=2e-3)
