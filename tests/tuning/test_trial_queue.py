"""The points and trials of a sweep: which are tried does not depend on how often its driver was started."""

import json
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from tuning.outcomes import FAILED, FINISHED, STOPPED, Attempt, Outcome, outcomes
from tuning.points import Points
from tuning.spaces import SPACES, Axis, Space
from tuning.trial_queue import TrialQueue

SPACE = SPACES["joint"]


def trial_queue(
    out: Path, search: str, *, count: int = 6, seeds: int = 1, space: Space = SPACE, rehearse: bool = False
) -> TrialQueue:
    reported: list[Outcome] = []
    points = Points(out / "study.db", space, search=search, count=count, seed=1)
    made = TrialQueue(
        points, out, seeds=seeds, rehearse=rehearse, report=lambda outcome, over, total: reported.append(outcome)
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
    one.on_trial_complete(name, {"epoch": 1} | ({} if outcome == STOPPED else {"outcome": outcome, "reason": "so"}))


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


def test_a_grid_gives_every_point_and_seed_once_and_takes_more_of_both_later(tmp_path: Path) -> None:
    few = Space("few", (Axis("model.mask_ratio", (0.0, 0.5)), Axis("model.nearby_frames", (2, 3))))
    tried = run(trial_queue(tmp_path, "grid", seeds=2, space=few))
    assert [(a.number, a.seed) for a in tried] == [(n, seed) for n in range(4) for seed in (1, 2)]
    more = Space("few", (Axis("model.mask_ratio", (0.0, 0.25, 0.5)), Axis("model.nearby_frames", (2, 3))))
    later = run(trial_queue(tmp_path, "grid", seeds=3, space=more))
    assert {(a.point["model.mask_ratio"], a.seed) for a in later} == {
        (0.0, 3),
        (0.5, 3),
        (0.25, 1),
        (0.25, 2),
        (0.25, 3),
    }
    assert len(outcomes(tmp_path)) == 18 and not run(trial_queue(tmp_path, "grid", seeds=3, space=more))


def test_a_point_drawn_twice_is_trained_once(tmp_path: Path) -> None:
    three = Space("three", (Axis("model.mask_ratio", (0.0, 0.25, 0.5)), Axis("model.nearby_frames", (2,))))
    one = trial_queue(tmp_path, "bayesian", count=9, space=three)
    assert sorted(attempt.point["model.mask_ratio"] for attempt in run(one)) == [0.0, 0.25, 0.5]
    assert one.unfinished() == 0  # the space has only three points


def test_a_trial_whose_process_died_is_unfinished_and_one_that_failed_is_not(tmp_path: Path) -> None:
    one = trial_queue(tmp_path, "random", count=3)
    first, second, third = (one.suggest(name) for name in "abc")
    one.on_trial_complete("a", None, error=True)
    finish(one, "b", second, outcome=FAILED)
    one.on_trial_complete(
        "c", {"epoch": 1}
    )  # ended without an outcome, and no scheduler stops trials here: an interruption
    assert [attempt.number for attempt in one.lost] == [0, 2] and one.unfinished() == 2
    assert [Attempt(**g["attempt"]).number for g in (first, second, third)] == [0, 1, 2]
    again = trial_queue(tmp_path, "random", count=3)
    assert [attempt.number for attempt in run(again)] == [0, 2]
    assert {outcome.number: outcome.outcome for outcome in outcomes(tmp_path)} == {0: FINISHED, 1: FAILED, 2: FINISHED}


def test_a_pruning_scheduler_hears_of_finished_trials_again(tmp_path: Path) -> None:
    one = trial_queue(tmp_path, "random", count=3, rehearse=True)
    given = {name: one.suggest(name) for name in "ab"}
    finish(one, "a", given["a"])
    finish(one, "b", given["b"], outcome=STOPPED)
    assert [outcome.reason for outcome in one.reported] == ["so", "after epoch 1"]  # type: ignore[attr-defined]
    again = trial_queue(tmp_path, "random", count=3, rehearse=True)
    rehearsed = [again.suggest(name) for name in "xy"]
    assert all(one["rehearsal"] for one in rehearsed) and again.unfinished() == 1
    for name in "xy":
        again.on_trial_complete(name, {"epoch": 1})
    assert not again.reported and not again.suggest("z")["rehearsal"]  # type: ignore[attr-defined]
