"""$GLOT_HOME: where defaults point, which body is meant, and one message for everything that is missing."""

from pathlib import Path

import pytest

from glot import home
from glot.errors import InputError


def test_the_home_is_the_current_folder_or_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GLOT_HOME", raising=False)
    assert home.features_folder() == Path("features")
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    assert (home.data_folder(), home.runs_folder()) == (tmp_path / "data", tmp_path / "runs")


def test_the_body_is_the_one_given_or_that_of_the_features_or_smpl_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    given = Path("my/SMPL_NEUTRAL.pkl")
    assert home.body_folder() is None
    assert home.body_for(None, {"open": False}) is None
    (tmp_path / "body").mkdir()
    assert home.body_folder() is None
    (tmp_path / "body" / "SMPL_NEUTRAL.pkl").touch()
    assert home.body_folder() == tmp_path / "body"
    assert home.body_for(None, {"open": False}) == tmp_path / "body"
    assert home.body_for(None, {"open": True}) is None
    assert home.body_for(given, {"open": True}) == home.body_for(given, {"open": False}) == given


def test_everything_that_is_missing_is_said_at_once() -> None:
    error = str(home.missing_error([("features/3dpw/train: no feature set", "make it"), ("body: no SMPL", "fetch it")]))
    assert error == (
        "2 things are missing:\n  features/3dpw/train: no feature set\n      make it\n  body: no SMPL\n      fetch it"
    )
    assert str(home.missing_error([("features: empty", "make it")])) == "features: empty\n    make it"


def test_in_a_ray_job_every_relative_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"--root": Path("data/3dpw"), "--body": None, "--tracks": Path("/boxes"), "--out": Path("features")}
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    home.check_job_paths(paths)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="^--root data/3dpw, --out features: must be absolute in a Ray job") as caught:
        home.check_job_paths(paths)
    assert "GLOT_HOME" in str(caught.value)
    home.check_job_paths({"--root": Path("/data"), "--out": None})
