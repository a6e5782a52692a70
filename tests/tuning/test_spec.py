"""A sweep's spec: its defaults, and mistakes that are named before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.training.mlflow_store import default_uri
from tuning.spec import ReportSpec, SearchSpec


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resume": True, "fresh": True}, "--resume --fresh"),
        ({"seeds": 0}, "--seeds 0: must be 1 or more"),
        ({"concurrent": -1}, "--concurrent -1"),
        ({"gpus_per_trial": 1.5}, "--gpus-per-trial 1.5: give a fraction of one GPU, or a whole number"),
        ({"gpus_per_trial": 0.5, "workers_per_trial": 2}, "--workers-per-trial 2: is for CPUs"),
        ({"mlflow": "none"}, "--mlflow none: a sweep needs a store"),
        ({"out": Path(__file__)}, "is a file; give a folder"),
        ({"settings": ("epochs=many",)}, "epochs=many"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        SearchSpec(**options)


def test_defaults_are_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    spec = SearchSpec(space="positions")
    assert spec.features == tmp_path / "features" and spec.sweep_folder == tmp_path / "runs" / "positions"
    assert spec.tracking_uri == default_uri(tmp_path / "runs")
    with pytest.raises(InputError, match="features/3dpw/train and .*validation: no finished feature set"):
        spec.check_places()
    with pytest.raises(InputError, match=r"--mlflow sqlite:.*: there is no such file"):
        ReportSpec()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").touch()
    assert ReportSpec().out == tmp_path / "runs" / "report"


def test_workers_of_a_trial() -> None:
    assert SearchSpec().workers == SearchSpec(gpus_per_trial=0.5).workers == SearchSpec(gpus_per_trial=1).workers == 1
    assert SearchSpec(gpus_per_trial=2).workers == SearchSpec(workers_per_trial=2).workers == 2
