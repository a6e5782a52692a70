"""A real sweep with Ray Tune into a real MLflow store: one parent, one child a value, none twice."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from glot import tracking
from glot.body import load_body
from glot.errors import InputError
from tests.feature_fixture import write_feature_set
from tests.test_train_ray import SMALL
from tuning.search import SPACES, main, parse_values, plot


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, body = tmp_path_factory.mktemp("features"), load_body()
    write_feature_set(root / "3dpw" / "train", tracks=[60] * 3, body=body, seed=1)
    write_feature_set(root / "3dpw" / "validation", tracks=[30], body=body, seed=2, split="validation")
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_sweep_is_one_parent_with_a_child_for_every_value(features: Path, tmp_path: Path) -> None:
    uri, out = tracking.default_uri(tmp_path), tmp_path / "sweep"
    arguments = {"space": "mask_ratio", "setting": [*SMALL, "epochs=1"], "mlflow": uri}
    main(features, out, values="0,0.5", **arguments)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("glot-search").experiment_id

    def runs() -> tuple[list, list]:
        found = client.search_runs([experiment])
        children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        return [run for run in found if run not in children], children

    (parent,), children = runs()
    assert sorted(run.data.params["model.mask_ratio"] for run in children) == ["0.0", "0.5"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert {"mask_ratio.png", "mask_ratio.json"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    table = json.loads((out / "mask_ratio.json").read_text())
    assert {value: row["pa_mpjpe"] > 0 for value, row in table.items()} == {"0": True, "0.5": True}

    main(features, out, values="0,0.5", **arguments)  # finished: nothing runs again, nothing is there twice
    assert [len(kind) for kind in runs()] == [1, 2]
    assert json.loads((out / "mask_ratio.json").read_text()) == table


def test_unknown_spaces_and_wrong_values_are_said(features: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nearby_frames"):
        main(features, tmp_path, space="colour")
    with pytest.raises(InputError, match="numbers with commas"):
        parse_values("0;1", SPACES["mask_ratio"])
    with pytest.raises(InputError, match="mask_ratio"):
        main(features, tmp_path / "never", space="mask_ratio", values="0.5,1.5")
    assert not (tmp_path / "never").exists()


def test_the_paper_has_a_row_for_every_default_value() -> None:
    for space in SPACES.values():
        assert set(space.paper) == set(space.values)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    found = {0.0: dict.fromkeys(("pa_mpjpe", "mpjpe", "mpvpe", "accel"), 50.0)}
    plot(SPACES["mask_ratio"], found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
