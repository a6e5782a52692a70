"""How many trials fit: what is printed runs at the same time, whichever nodes there are."""

from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError, NotNowError
from glot.training.cluster import nodes as cluster_nodes
from tuning import shares
from tuning.shares import choose_device, share_cluster
from tuning.spec import SearchSpec
from tuning.trial import CPU_SHARE, TrialPlan


def shared(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], trials: int = 20, **options: Any) -> Any:
    monkeypatch.setattr(cluster_nodes, "resources", lambda: nodes)
    monkeypatch.setattr(shares, "can_grow", lambda: False)
    monkeypatch.setattr(cluster_nodes, "can_grow", lambda: False)
    spec = SearchSpec(features=Path("f"), out=Path("o"), **options)
    return share_cluster(TrialPlan(spec, parent=""), trials)


@pytest.mark.parametrize("nodes", [(0, 8), (8,), (1, 1), (3, 5), (2, 64), (0, 0, 4, 4), (1.5, 2.5)])
@pytest.mark.parametrize("concurrent", [0, 1, 3])
@pytest.mark.parametrize("trials", [1, 2, 20])
def test_as_many_trials_run_as_are_printed(
    monkeypatch: pytest.MonkeyPatch, nodes: tuple[float, ...], concurrent: int, trials: int
) -> None:
    """Every trial is on one node, and a larger share of cores would not leave room for as many."""
    at_once, plan = shared(monkeypatch, [{"CPU": n} for n in nodes], trials, concurrent=concurrent)
    assert at_once == min(concurrent or 1000, trials, sum(int(n) for n in nodes))
    assert sum(int(n) // plan.cpus for n in nodes) >= at_once
    assert sum(int(n) // (plan.cpus + 1) for n in nodes) < at_once
    assert plan.resources() == {"CPU": plan.cpus}


def test_a_head_node_without_cores_holds_no_trial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_once, plan = shared(monkeypatch, [{"CPU": 0}, {"CPU": 8}], 8)
    assert (at_once, plan.cpus) == (8, 1)
    assert "8 fit, 8 at a time with 1 core each (8 CPU cores and 0 GPUs on 2 nodes)" in capsys.readouterr().out


def test_workers_of_a_trial_may_be_on_different_nodes_but_each_is_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"CPU": 1.5}, {"CPU": 1.5}, {"CPU": 1.0}]
    assert shared(monkeypatch, nodes, workers_per_trial=3)[0] == 1
    with pytest.raises(InputError, match="a trial needs 4 cores, and the cluster has 4 CPU cores"):
        shared(monkeypatch, nodes, workers_per_trial=4)
    assert CPU_SHARE < 1
    assert shared(monkeypatch, [{"CPU": 4, "GPU": 3}, {"CPU": 4, "GPU": 3}], gpus_per_trial=2)[0] == 3
    assert shared(monkeypatch, [{"CPU": 4, "GPU": 1}, {"CPU": 1, "GPU": 2}], gpus_per_trial=0.5)[0] == 3
    assert shared(monkeypatch, [{"CPU": 16, "GPU": 2}], gpus_per_trial=0.6)[0] == 2  # a part of a GPU is on one


@pytest.mark.parametrize(("concurrent", "workers", "asked"), [(0, 1, 1), (6, 1, 6), (3, 2, 6), (50, 1, 20)])
def test_a_cluster_at_zero_nodes_is_asked_for_as_many_trials_as_the_user_wants(
    monkeypatch: pytest.MonkeyPatch, concurrent: int, workers: int, asked: int
) -> None:
    asking: list[int] = []

    def grown(count: int, claim: Any) -> list[dict[str, float]]:
        asking.append(count)
        return [{"CPU": 0}] + [{"CPU": 8}] * count

    monkeypatch.setattr(shares, "grown_resources", grown)
    spec = SearchSpec(features=Path("f"), out=Path("o"), concurrent=concurrent, workers_per_trial=workers)
    at_once, plan = share_cluster(TrialPlan(spec, parent=""), 20)
    assert asking == [asked] and at_once == min(concurrent or 8, 20)
    assert plan.cpus == (8 if concurrent and workers == 1 else 1)


def test_a_cluster_that_does_not_grow_in_time_is_not_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "grown_resources", lambda count, claim: [{"CPU": 0}])
    monkeypatch.setattr(shares, "can_grow", lambda: True)
    spec = SearchSpec(features=Path("f"), out=Path("o"))
    with pytest.raises(NotNowError, match="a trial needs 1 core, and the cluster has 0 CPU cores .* has not grown"):
        share_cluster(TrialPlan(spec, parent=""), 20)


@pytest.mark.parametrize(
    ("options", "gpus", "chosen", "said"),
    [
        ({}, 4, 1.0, "each trial trains on 1 of 4 GPUs (--gpus-per-trial 0: on CPUs)\n"),
        ({}, 0, 0.0, ""),
        ({"gpus_per_trial": 0.0}, 4, 0.0, ""),
        ({"gpus_per_trial": 0.5}, 4, 0.5, ""),
        ({"workers_per_trial": 2}, 4, 0.0, ""),
    ],
)
def test_a_gpu_is_taken_where_the_user_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    gpus: int,
    chosen: float,
    said: str,
) -> None:
    monkeypatch.setattr(shares, "usable_gpus", lambda: gpus)
    spec = SearchSpec(features=Path("f"), out=Path("o"), **options)
    assert choose_device(spec).gpus_per_trial == chosen and capsys.readouterr().out == said
