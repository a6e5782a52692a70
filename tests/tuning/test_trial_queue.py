"""The points and trials of a sweep: which are tried does not depend on how often its driver was started."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from ray.tune.search import Searcher

from glot.errors import NotNowError
from tests.fixtures.full_disk import full_disk
from tuning import trial_queue as queues
from tuning.outcomes import BROKEN, FAILED, FINISHED, NOT_NOW, Attempt, Outcome, outcomes
from tuning.points import SAME, Points
from tuning.spec import SearchSpec
from tuning.trial_queue import TrialQueue


class Killed(Exception):
    """Stands for the death of a process."""


def space_file(folder: Path, **axes: Any) -> str:
    """A file of a space; ``axes``: name of a field of the model -> its values, or the keys of its range."""
    keys = [{"field": f"model.{name}", **(a if isinstance(a, dict) else {"values": a})} for name, a in axes.items()]
    (folder / "mine.yaml").write_text(yaml.safe_dump({"axes": keys}))
    return str(folder / "mine.yaml")


def trial_queue(
    out: Path,
    search: str,
    *,
    count: int = 6,
    seeds: int = 1,
    space: str = "joint",
    stopped: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
) -> TrialQueue:
    reported: list[Outcome] = []
    trials = 0 if search == "grid" else count
    spec = SearchSpec(features=out, out=out, space=space, search=search, trials=trials, seeds=seeds, settings=settings)
    points = Points(out / "study.db", spec.swept, search=search, count=count, seed=1)
    made = TrialQueue(
        points, spec, stopped=lambda name: name in stopped, report=lambda outcome, over, total: reported.append(outcome)
    )
    made.reported = reported  # type: ignore[attr-defined]
    return made


def error(point: dict) -> float:
    """The error of a trial at a point, instead of a training run's."""
    return 50 + 100 * abs(point["model.mask_ratio"] - 0.5) + point["model.nearby_frames"]


def finish(one: TrialQueue, name: str, given: dict, *, outcome: str = FINISHED) -> None:
    attempt = Attempt(**given["attempt"])
    folder = attempt.folder(one.out)
    folder.mkdir(parents=True, exist_ok=True)
    row = {"epoch": 1, "val_pa_mpjpe": error(attempt.point), "train_loss": 3.0}
    (folder / "epochs.json").write_text(json.dumps([row]))
    one.on_trial_complete(name, {"epoch": 1, "outcome": outcome, "reason": "so"})


def run(one: TrialQueue, *, stop_after: int = 1000) -> list[Attempt]:
    """Runs trials one after the other, as Tune does. The one after ``stop_after`` trials begins and never ends."""
    tried: list[Attempt] = []
    while (given := one.suggest(str(len(tried)))) != Searcher.FINISHED:
        if len(tried) == stop_after:
            break
        finish(one, str(len(tried)), given)
        tried.append(Attempt(**given["attempt"]))
    return tried


@pytest.mark.parametrize("search", ["random", "bayesian"])
@pytest.mark.parametrize("at", [0, 4])
def test_a_search_that_was_killed_tries_the_same_points(tmp_path: Path, search: str, at: int) -> None:
    (tmp_path / "whole").mkdir(), (tmp_path / "cut").mkdir()
    whole = run(trial_queue(tmp_path / "whole", search, count=6))
    first = run(trial_queue(tmp_path / "cut", search, count=6), stop_after=at)
    rest = run(trial_queue(tmp_path / "cut", search, count=6))
    assert len(whole) == 6 and first + rest == whole
    assert len({json.dumps(attempt.point) for attempt in whole}) == 6
    assert trial_queue(tmp_path / "cut", search, count=6).unfinished() == 0


def test_a_bayesian_search_ends_nearer_to_the_best_than_a_random_one(tmp_path: Path) -> None:
    late = {}
    for search in ("random", "bayesian"):
        (tmp_path / search).mkdir()
        tried = run(trial_queue(tmp_path / search, search, count=24))
        late[search] = sum(error(attempt.point) for attempt in tried[12:]) / 12
    assert late["bayesian"] < late["random"] - 5


def test_points_that_are_tried_at_the_same_time_are_not_proposed_again(tmp_path: Path) -> None:
    """Ten points in parallel after ten results. A sampler that does not see them draws thirty of them again."""
    space = space_file(
        tmp_path, mask_ratio={"low": 0.0, "high": 0.875, "step": 0.125}, nearby_frames={"low": 1, "high": 7}
    )
    one = trial_queue(tmp_path, "bayesian", count=20, space=space)
    for number in range(10):
        finish(one, str(number), one.suggest(str(number)))
    given = [one.suggest(f"parallel {number}")["attempt"]["point"] for number in range(10)]
    assert len({json.dumps(point) for point in given}) == 10
    repeats = [trial for trial in one.points.study.get_trials(deepcopy=False) if SAME in trial.user_attrs]
    assert len(repeats) <= 3


def test_a_grid_gives_every_point_and_seed_once_and_takes_more_of_both_later(tmp_path: Path) -> None:
    few = space_file(tmp_path, mask_ratio=[0.0, 0.5], nearby_frames=[2, 3])
    tried = run(trial_queue(tmp_path, "grid", seeds=2, space=few))
    assert [(a.number, a.seed) for a in tried] == [(n, seed) for n in range(4) for seed in (1, 2)]
    more = space_file(tmp_path, mask_ratio=[0.0, 0.25, 0.5], nearby_frames=[2, 3])
    later = run(trial_queue(tmp_path, "grid", seeds=3, space=more))
    assert {(a.point["model.mask_ratio"], a.seed) for a in later} == {
        (0.0, 3),
        (0.5, 3),
        (0.25, 1),
        (0.25, 2),
        (0.25, 3),
    }
    assert len(outcomes(tmp_path)) == 18 and not run(trial_queue(tmp_path, "grid", seeds=3, space=more))


def test_seeds_begin_at_the_recipes_or_are_the_points(tmp_path: Path) -> None:
    few = space_file(tmp_path, mask_ratio=[0.0, 0.5], nearby_frames=[2])
    tried = run(trial_queue(tmp_path, "grid", seeds=2, space=few, settings=("seed=7",)))
    assert [(a.number, a.seed) for a in tried] == [(0, 7), (0, 8), (1, 7), (1, 8)]
    (tmp_path / "seeds.yaml").write_text(
        "axes: [{field: seed, values: [5, 3]}, {field: model.mask_ratio, values: [0.5]},"
        " {field: model.nearby_frames, values: [2]}]"
    )
    (tmp_path / "other").mkdir()
    tried = run(trial_queue(tmp_path / "other", "grid", space=str(tmp_path / "seeds.yaml")))
    assert [(a.number, a.seed) for a in tried] == [(0, 5), (1, 3)]


@pytest.mark.parametrize("name", ["with space", "a%20b", "a#b", "a?b", "ä"])
def test_points_are_kept_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    first = [trial_queue(folder, "random", count=2).points.new()]
    again = trial_queue(folder, "random", count=2).points
    assert again.given() == dict(first)  # type: ignore[arg-type]
    assert {path.name for path in folder.iterdir()} == {"study.db"} and list(tmp_path.iterdir()) == [folder]


def test_a_point_drawn_twice_is_trained_once(tmp_path: Path) -> None:
    three = space_file(tmp_path, mask_ratio=[0.0, 0.25, 0.5], nearby_frames=[2])
    one = trial_queue(tmp_path, "bayesian", count=9, space=three)
    assert sorted(attempt.point["model.mask_ratio"] for attempt in run(one)) == [0.0, 0.25, 0.5]
    assert one.unfinished() == 0  # the space has only three points


def test_points_that_make_no_recipe_fail_without_a_process(tmp_path: Path) -> None:
    """Four of the nine combinations have more nearby frames than their window holds."""
    wide = space_file(tmp_path, frames=[4, 8, 12], nearby_frames=[2, 3, 5], mask_ratio=[0.0])
    one = trial_queue(tmp_path, "random", count=9, space=wide)
    tried = run(one)
    assert tried and all(a.point["model.nearby_frames"] < a.point["model.frames"] // 2 for a in tried)
    failed = [outcome for outcome in outcomes(tmp_path) if outcome.outcome == FAILED]
    assert len(failed) + len(tried) == one.total and one.unfinished() == 0
    assert failed and all("nearby_frames=" in each.reason and "must be 1 to" in each.reason for each in failed)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "WAITS", (0.0, 0.0))


@pytest.mark.usefixtures("waits")
def test_what_something_outside_ended_is_tried_again_and_what_is_wrong_is_not(tmp_path: Path) -> None:
    one = trial_queue(tmp_path, "random", count=4)
    given = [one.suggest(name) for name in "abcd"]
    one.on_trial_complete("a", None, error=True)
    finish(one, "b", given[1], outcome=FAILED)
    finish(one, "c", given[2], outcome=NOT_NOW)
    finish(one, "d", given[3], outcome=BROKEN)
    again = [one.suggest(name) for name in "ef"]
    assert [each["attempt"]["number"] for each in again] == [0, 2] and one.suggest("g") is None  # two are running
    finish(one, "e", again[0])
    one.on_trial_complete("f", {"epoch": 1})  # ended without an outcome, and no scheduler stopped it
    last = one.suggest("h")
    finish(one, "h", last, outcome=NOT_NOW)
    assert one.suggest("i") == Searcher.FINISHED and one.seconds_to_wait() is None
    assert {name: outcome.outcome for name, outcome in one.given_up.items()} == {
        "002-seed1": NOT_NOW, "003-seed1": BROKEN,
    }  # fmt: skip
    reasons = [outcome.reason for outcome in one.reported]  # type: ignore[attr-defined]
    assert reasons[0] == "its process was lost; tried again in 0 s" and reasons[-1] == "so; --resume tries it again"
    assert "003-seed1/log.txt; --resume tries it again" in reasons[3]

    resumed = trial_queue(tmp_path, "random", count=4)
    assert [attempt.number for attempt in run(resumed)] == [2, 3] and resumed.unfinished() == 0
    assert {each.number: each.outcome for each in outcomes(tmp_path)} == {
        0: FINISHED, 1: FAILED, 2: FINISHED, 3: FINISHED,
    }  # fmt: skip


def test_a_trial_waits_and_a_new_checkpoint_starts_its_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "WAITS", (100.0,))
    now = [0.0]
    monkeypatch.setattr(queues.time, "monotonic", lambda: now[0])
    one = trial_queue(tmp_path, "grid", space=space_file(tmp_path, mask_ratio=[0.5], nearby_frames=[2]))
    for step in (5, 10, 15):
        given = one.suggest("a")
        (Attempt(**given["attempt"]).folder(tmp_path) / "steps" / f"{step:08d}").mkdir(parents=True)
        one.on_trial_complete("a", None, error=True)
        assert one.seconds_to_wait() == 100 and one.suggest("b") == Searcher.FINISHED
        now[0] += 101
        assert one.seconds_to_wait() == 0
    one.suggest("a")
    one.on_trial_complete("a", None, error=True)
    assert one.seconds_to_wait() is None and list(one.given_up) == ["000-seed1"]


def test_a_draw_that_was_cut_short_is_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the driver is killed between two fields of a point: the half point must not be trained."""
    one = trial_queue(tmp_path, "random", count=3)
    first = one.points.new()
    real = optuna.Trial._suggest

    def suggest(trial: optuna.Trial, name: str, *more: Any) -> Any:
        if name == "lr":
            raise Killed
        return real(trial, name, *more)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(optuna.Trial, "_suggest", suggest)
        one.points.new()
    tried = run(trial_queue(tmp_path, "random", count=3))
    assert first and tried[0].point == first[1] and len(tried) == 3
    assert all(attempt.point.keys() == first[1].keys() for attempt in tried)


def test_a_study_on_a_full_disk_is_asked_again_later(tmp_path: Path) -> None:
    with full_disk(tmp_path) as (disk, fill):
        one = trial_queue(disk, "random", count=3)
        first = one.suggest("a")
        with fill():
            assert one.suggest("b") is None
            with pytest.raises(NotNowError, match=r"study\.db: .*full"):
                one.points.new()
        finish(one, "a", first)
        assert len(run(one)) == 2 and one.unfinished() == 0


@pytest.mark.usefixtures("waits")
def test_a_full_disk_costs_a_trial_no_outcome(tmp_path: Path) -> None:
    with full_disk(tmp_path) as (disk, fill):
        one = trial_queue(disk, "grid", space=space_file(disk, mask_ratio=[0.5, 0.25], nearby_frames=[2]))
        given = [one.suggest(name) for name in "ab"]
        finish(one, "a", given[0], outcome=NOT_NOW)
        folder = Attempt(**given[1]["attempt"]).folder(disk)
        folder.mkdir(parents=True)
        with fill():
            one.on_trial_complete("b", {"epoch": 1, "outcome": FINISHED, "reason": ""})
        assert not outcomes(disk) and "No space left" in one.reported[-1].reason  # type: ignore[attr-defined]
        again = [one.suggest(name) for name in "cd"]
        for name, each in zip("cd", again, strict=True):
            finish(one, name, each)
        assert [outcome.outcome for outcome in outcomes(disk)] == [FINISHED] * 2 and one.unfinished() == 0
