"""A trial's training run: its recipe, its folder, and where its workers run."""

from pathlib import Path
from typing import Any

import pytest

from glot.training.workers import RayWorkers, ThisProcess
from tuning import trial
from tuning.outcomes import Attempt
from tuning.spec import SearchSpec
from tuning.trial import TrialPlan

ATTEMPT = Attempt(3, {"model.mask_ratio": 0.25}, seed=2)


def plan(tmp_path: Path, **options: Any) -> TrialPlan:
    spec = SearchSpec(features=tmp_path, out=tmp_path / "sweep", settings=("epochs=3", "seed=9"), **options)
    return TrialPlan(spec, parent="the sweep's run", cpus=4)


def test_a_trial_is_a_run_of_its_point_and_seed_in_a_folder_of_its_own(tmp_path: Path) -> None:
    one = plan(tmp_path)
    spec, labels = one.train_spec(ATTEMPT), one.labels(ATTEMPT)
    assert spec.run_folder == tmp_path / "sweep" / "trials" / "003-seed2" and spec.resume
    recipe = spec.chosen_recipe
    assert (recipe.model.mask_ratio, recipe.seed, recipe.epochs) == (0.25, 2, 3)
    assert spec.tracking_uri == one.spec.tracking_uri  # the store of the sweep, not one in its folder
    assert (labels.name, labels.parent, labels.upload) == ("mask_ratio=0.25, seed 2", "the sweep's run", False)


@pytest.mark.parametrize(
    ("options", "in_process", "counts", "resources"),
    [
        ({}, True, (0, 1), {"CPU": 4}),
        ({"gpus_per_trial": 0.5}, True, (0, 1), {"CPU": 4, "GPU": 0.5}),
        ({"gpus_per_trial": 2}, False, (2, 2), {"CPU": 0.01}),
        ({"workers_per_trial": 3}, False, (0, 3), {"CPU": 0.01}),
    ],
)
def test_a_trial_trains_in_its_own_process_or_with_several_workers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    in_process: bool,
    counts: tuple[int, int],
    resources: dict[str, float],
) -> None:
    monkeypatch.setattr(trial, "ReportEpochs", lambda epochs: None)  # can only be made inside a trial
    one = plan(tmp_path, **options)
    spec, launcher = one.train_spec(ATTEMPT), one.launcher(lambda metrics: None, epochs=3)
    assert isinstance(launcher, ThisProcess if in_process else RayWorkers)
    assert (spec.gpus, spec.worker_count) == counts and one.resources() == resources
    if isinstance(launcher, ThisProcess):
        assert launcher.gpu == bool(options) and launcher.threads == 4
