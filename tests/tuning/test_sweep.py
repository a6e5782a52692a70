"""Sweeps whose trials are trained one after the other in this process: real runs and a real store, but no Ray."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from glot.errors import InputError, NotNowError
from glot.human.body import load_body
from glot.models.checkpoint import load_checkpoint
from glot.training.driver import fit
from glot.training.record import mlflow_runs
from glot.training.record.mlflow_store import default_uri
from glot.training.run_state import held
from glot.training.spec import TrainSpec
from glot.training.workers import ThisProcess
from tests.fixtures.features import write_feature_set, write_training_sets
from tests.fixtures.sweeping import trials_in_this_process
from tests.glot.training.test_driver import SMALL
from tuning import search, sweep, trial
from tuning.outcomes import FAILED, FINISHED
from tuning.registry import children, newest_sweeps, read_sweep
from tuning.runner import TrialsEnd
from tuning.spec import SearchSpec

TINY = (*SMALL, "epochs=1", "steps_per_epoch=2", "model.width=8", "model.decoder_width=4", "model.local_width=4")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_sets(tmp_path_factory.mktemp("features"), load_body())


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    trials_in_this_process(monkeypatch)


def spec(features: Path, out: Path, *settings: str, **options: Any) -> SearchSpec:
    given = {"values": "0.5", "mlflow": default_uri(out.parent)} | options
    return SearchSpec(features=features, out=out, settings=(*TINY, *settings), **given)


def trained_seeds(out: Path) -> dict[str, int]:
    """The seed that each trial was trained with, by the name of its folder."""
    return {path.parent.name: load_checkpoint(path).recipe.seed for path in sorted(out.glob("trials/*/last"))}


def test_the_seeds_that_were_asked_for_are_trained(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    sweep.run_sweep(spec(features, out, "seed=7", seeds=2))
    assert trained_seeds(out) == {"000-seed7": 7, "000-seed8": 8}
    alone = TrainSpec(
        features=features, out=tmp_path / "alone", mlflow="none", settings=(*TINY, "model.mask_ratio=0.5", "seed=7")
    )
    fit(alone, ThisProcess(lambda metrics: None))

    def weights(folder: Path) -> torch.Tensor:
        return torch.cat([tensor.flatten() for tensor in load_checkpoint(folder / "last").model.state_dict().values()])

    assert torch.equal(weights(tmp_path / "alone"), weights(out / "trials" / "000-seed7"))
    assert not torch.equal(weights(tmp_path / "alone"), weights(out / "trials" / "000-seed8"))


def test_an_axis_over_the_seed_trains_each_of_its_seeds(features: Path, tmp_path: Path) -> None:
    (tmp_path / "seeds.yaml").write_text("axes: [{field: seed, values: [5, 3]}]")
    out = tmp_path / "sweep"
    end = sweep.run_sweep(spec(features, out, space=str(tmp_path / "seeds.yaml"), values=""))
    assert trained_seeds(out) == {"000-seed5": 5, "001-seed3": 3}
    five, three = (json.loads((out / "trials" / n / "epochs.json").read_text()) for n in ("000-seed5", "001-seed3"))
    assert five[0]["train_loss"] != three[0]["train_loss"]
    runs = children(default_uri(tmp_path), newest_sweeps(default_uri(tmp_path), "glot-search")["seeds"].info.run_id)
    assert sorted(run.data.params["seed"] for run in runs) == ["3", "5"]
    assert [row.point["seed"] for row in end.results.rows()] == [3, 5] and end.trials == TrialsEnd()


def test_a_body_that_is_none_is_an_error_before_the_first_trial(features: Path, tmp_path: Path) -> None:
    (tmp_path / "nobody").mkdir()
    with pytest.raises(InputError, match=r"nobody: no SMPL_NEUTRAL"):
        sweep.run_sweep(spec(features, tmp_path / "sweep", body=tmp_path / "nobody"))
    assert not (tmp_path / "sweep").exists() and not (tmp_path / "mlflow.db").exists()


def failing(error: Exception, at: float, real: Callable[..., Any]) -> Callable[..., Any]:
    """``fit``, but the trial with this mask ratio fails before it has written anything."""

    def fit(given: TrainSpec, *more: Any, **options: Any) -> Any:
        if given.chosen_recipe.model.mask_ratio == at:
            raise error
        return real(given, *more, **options)

    return fit


def test_a_trial_that_fails_before_it_wrote_anything_is_one_of_the_results(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, uri = tmp_path / "sweep", default_uri(tmp_path)
    monkeypatch.setattr(trial, "fit", failing(InputError("the loss is nan"), 0.25, trial.fit))
    wanted = spec(features, out, values="0.25,0.5", resume=True)
    for _ in range(2):
        end = sweep.run_sweep(wanted)
        assert not end.unsent and end.trials.unfinished == 0
        assert [outcome.outcome for outcome in end.results.outcomes] == [FAILED, FINISHED]
        parent = newest_sweeps(uri, "glot-search")["mask_ratio"]
        assert parent.info.status == "FINISHED" and [t.outcome for t in read_sweep(uri, parent).outcomes] == [FINISHED]
        assert len(MlflowClient(uri).search_model_versions("name = 'glot-mask_ratio'")) == 1


@pytest.mark.parametrize(
    ("error", "code"), [(KeyError("val_mpvpe"), search.PROGRAM_ERROR), (NotNowError("a store"), search.NOT_FINISHED)]
)
def test_what_is_no_mistake_of_the_recipe_is_tried_again_by_resume(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    out = tmp_path / "sweep"
    wanted = spec(features, out, values="0.25,0.5")
    monkeypatch.setattr("tuning.trial_queue.WAITS", ())
    with monkeypatch.context() as patch:
        patch.setattr(trial, "fit", failing(error, 0.25, trial.fit))
        assert search.main(wanted) == code
    assert ("Traceback" in (out / "trials/000-seed1/log.txt").read_text()) == (code == search.PROGRAM_ERROR)
    with pytest.raises(InputError, match="--resume goes on with it"):
        sweep.run_sweep(wanted)
    assert search.main(spec(features, out, values="0.25,0.5", resume=True)) == 0
    assert trained_seeds(out) == {"000-seed1": 1, "001-seed1": 1}


def test_a_sweep_validated_without_smpl_parameters_ends_and_can_be_started_again(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Motion capture sets have joints only, so there is no MPVPE."""
    (tmp_path / "3dpw").symlink_to(features / "3dpw")
    mocap = tmp_path / "human36m" / "validation"
    write_feature_set(mocap, tracks=[20], body=load_body(), dataset="human36m", split="validation")
    wanted = spec(tmp_path, tmp_path / "sweep", "data.validation=human36m", resume=True)
    for _ in range(2):
        assert search.main(wanted) == 0
    page = (tmp_path / "sweep" / "report.md").read_text()
    assert "| – | 96.3 | – |" in page and "1 finished" in page
    assert "Traceback" not in capsys.readouterr().err


def test_a_sweep_runs_once_at_a_time(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    with held(out, what="sweep"), pytest.raises(NotNowError, match="this sweep is running already"):
        sweep.run_sweep(spec(features, out, resume=True))


def test_nothing_of_the_libraries_is_printed(features: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a new store, MLflow creates its tables, and says so unless it is told not to."""
    sweep.run_sweep(spec(features, tmp_path / "sweep"))
    assert mlflow_runs.prepare(default_uri(tmp_path), "another")
    printed = capfd.readouterr()
    assert "mlflow.store" not in printed.err + printed.out and "INFO" not in printed.err


@pytest.mark.slow
def test_the_models_of_the_papers_table_are_swept(features: Path, tmp_path: Path) -> None:
    """All five as they are, but for the sizes that they share; their table has the paper's errors beside ours."""
    out, settings = tmp_path / "sweep", ("model.frames=16", "model.hidden=16", "data.batch_size=4")
    steps = ("epochs=1", "steps_per_epoch=1", "warmup_epochs=0", "data.stride=8")
    sweep.run_sweep(
        SearchSpec(
            features=features, out=out, settings=(*settings, *steps), space="models", mlflow=default_uri(tmp_path)
        )
    )
    kinds = [load_checkpoint(path).recipe.model.kind for path in sorted(out.glob("trials/*/best"))]
    assert sorted(kinds) == ["glot", "meva", "mps_net", "tcmr", "vibe"]
    table = (out / "report.md").read_text()
    assert all(name in table for name in kinds) and "52.7" in table and "nan" not in table.lower()
