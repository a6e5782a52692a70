"""A trial's training run: its recipe, its folder, and where its workers run."""

import errno
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import WorkerCrashedError

from glot.errors import InputError, NotNowError
from glot.training.workers import RayWorkers, ThisProcess
from tuning import trial
from tuning.outcomes import BROKEN, FAILED, NOT_NOW, Attempt
from tuning.spec import SearchSpec
from tuning.trial import TrialPlan, trial_function

ATTEMPT = Attempt(3, {"model.mask_ratio": 0.25}, seed=2)


def plan(tmp_path: Path, **options: Any) -> TrialPlan:
    spec = SearchSpec(features=tmp_path, out=tmp_path / "sweep", settings=("epochs=3", "seed=2"), **options)
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


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("no such set"), FAILED),
        (NotNowError("MLflow does not answer"), NOT_NOW),
        (OSError(errno.ENOSPC, "No space left on device"), NOT_NOW),
        (OSError(errno.ESTALE, "Stale file handle"), NOT_NOW),
        (WorkerCrashedError(), NOT_NOW),
        (FileNotFoundError(errno.ENOENT, "No such file"), BROKEN),
        (KeyError("val_mpvpe"), BROKEN),
        (RuntimeError("shapes (2,) and (3,) do not fit"), BROKEN),
    ],
)
def test_how_a_trial_ends_follows_from_the_kind_of_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trial.tune, "report", reports.append)

    def fails(*given: Any, **options: Any) -> None:
        print("before it failed")
        raise error

    monkeypatch.setattr(trial, "fit", fails)
    one = plan(tmp_path)
    trial_function(one)({"attempt": asdict(ATTEMPT)})
    assert [(report["outcome"], bool(report["reason"])) for report in reports] == [(kind, True)]
    log = (ATTEMPT.folder(one.spec.sweep_folder) / "log.txt").read_text()
    assert log.startswith("before it failed") and "error: " in log
    assert ("Traceback" in log) == (kind == BROKEN)


def test_a_trial_whose_spec_is_wrong_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, because its body was deleted while the sweep ran."""
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trial.tune, "report", reports.append)
    body = tmp_path / "body"
    body.mkdir()
    one = plan(tmp_path, body=body)
    body.rmdir()
    trial_function(one)({"attempt": asdict(ATTEMPT)})
    assert reports[0]["outcome"] == FAILED and "there is no such file or folder" in reports[0]["reason"]


def test_only_trials_of_meva_take_the_motion_vae(tmp_path: Path) -> None:
    vae = tmp_path / "vae"
    vae.mkdir()
    spec = SearchSpec(features=tmp_path, space="models", settings=("model.frames=16",), vae=vae)
    swept = TrialPlan(spec, parent="")
    given = {
        point["model"]: swept.train_spec(Attempt(number, dict(point), 1)).vae
        for number, point in enumerate(spec.swept.grid())
    }
    assert given == {"glot": None, "tcmr": None, "mps_net": None, "vibe": None, "meva": vae}
    assert SearchSpec(features=tmp_path, space="models", search="random", trials=2, vae=vae).trains_meva
    with pytest.raises(InputError, match="--vae .*: is for MEVA, and no trial of this sweep trains it"):
        SearchSpec(features=tmp_path, vae=vae)
    with pytest.raises(InputError, match="there is no such motion VAE"):
        SearchSpec(features=tmp_path, space="models", settings=("model.frames=16",), vae=tmp_path / "nowhere")
