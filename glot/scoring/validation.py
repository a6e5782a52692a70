"""A model in training and its validation sets in; the errors of an epoch out. All workers share the tracks.

The errors are those that one worker alone would find, to the last digit: workers exchange the errors of single frames.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.distributed as dist

from glot.config import Recipe
from glot.features.store import FeatureStore, Track
from glot.human.body import Body
from glot.models.temporal_model import TemporalModel
from glot.scoring.evaluation import Scores, check_truth, evaluate_split, rows_needed


class Validation:
    """The evaluation after an epoch, on one of ``world`` workers. Every worker has to call it.

    ``folders``: of the sets, by name; the metrics of the first have no name in theirs. InputError, before training
    begins, for a set that has nothing to compare predictions with.
    """

    def __init__(self, recipe: Recipe, folders: Mapping[str, Path], body: Body, *, rank: int, world: int) -> None:
        self.recipe, self.body = recipe, body
        self.stores = {name: FeatureStore.open(folder) for name, folder in folders.items()}
        for store in self.stores.values():
            check_truth(store, frames=rows_needed(recipe.model))
        self.mine = {name: shares(store.tracks, world)[rank] for name, store in self.stores.items()}

    def __call__(self, model: TemporalModel, epoch: int) -> dict[str, float]:
        """Errors on the validation sets, val_METRIC and val_SET_METRIC; {} for an epoch that is not evaluated.

        ``epoch`` counts from 1. A set without SMPL parameters has no val_mpvpe.
        """
        if epoch <= min(self.recipe.first_eval_epoch, self.recipe.epochs - 1):
            return {}
        errors: dict[str, float] = {}
        for number, (name, store) in enumerate(self.stores.items()):
            result = evaluate_split(
                model, store, self.body, vertices=True, tracks=self.mine[name], together=scores_of_all
            )
            prefix = f"val_{name}_" if number else "val_"
            errors |= {f"{prefix}{metric}": value for metric, value in result.metrics.items()}
        return errors


def shares(tracks: Sequence[Track], world: int) -> list[list[Track]]:
    """The tracks of each of ``world`` workers, with about the same number of frames: the longest are given out first,
    each to the worker with the fewest frames so far."""
    given: list[list[Track]] = [[] for _ in range(world)]
    frames = [0] * world
    for track in sorted(tracks, key=lambda track: (track.start - track.stop, track)):
        worker = frames.index(min(frames))
        given[worker].append(track)
        frames[worker] += track.stop - track.start
    return given


def scores_of_all(mine: Scores) -> Scores:
    """The scores of all workers' tracks, on every worker."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return mine
    everyones: list[Scores] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyones, mine)
    return {track_id: scores for each in everyones for track_id, scores in each.items()}
