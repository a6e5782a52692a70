"""How many trials fit: what is printed runs at the same time, whichever nodes there are."""

from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from tuning import shares
from tuning.shares import share_cluster
from tuning.spec import SearchSpec
from tuning.trial import CPU_SHARE, TrialPlan


def shared(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], trials: int = 20, **options: Any) -> Any:
    monkeypatch.setattr(shares, "alive_nodes", lambda: [{"Resources": node} for node in nodes])
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
