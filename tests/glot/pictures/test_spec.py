"""Defaults come from $GLOT_HOME, everything that is missing is named at once, and mistakes need no heavy imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from glot.errors import InputError
from glot.pictures.spec import RenderSpec, ViewSpec
from tests.fixtures.places import ROOT

HEAVY = ("cv2", "torch", "av", "scipy", "matplotlib", "ray", "mlflow")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    return tmp_path


def test_defaults_are_folders_of_the_home(home: Path) -> None:
    spec = RenderSpec()
    assert spec.checkpoint == home / "runs" / "open_sample" / "best"
    assert (spec.features, spec.out) == (home / "features", home / "runs" / "pictures")
    assert spec.picture_root == home / "data" / "3dpw"
    assert RenderSpec(dataset="human36m").picture_root == home / "data" / "human36m"


def test_the_rendered_sample_stands_for_3dpw_where_that_is_missing(home: Path) -> None:
    sample, genuine = home / "data" / "sample", home / "data" / "3dpw"
    sample.mkdir(parents=True)
    assert RenderSpec().picture_root == genuine  # the sample is not finished
    (sample / "sample.json").write_text("{}")
    assert RenderSpec().picture_root == sample
    assert RenderSpec(dataset="human36m").picture_root == home / "data" / "human36m"
    genuine.mkdir()
    assert RenderSpec().picture_root == genuine
    assert RenderSpec(root=sample).picture_root == sample


def test_everything_that_is_missing_is_in_one_message(home: Path) -> None:
    with pytest.raises(InputError) as caught:
        RenderSpec().check_places()
    message = str(caught.value)
    for part in (
        "3 things are missing",
        f"--checkpoint {home}/runs/open_sample/best: there is no such folder",
        "python -m glot.train_ray",
        f"{home}/features/3dpw/test: no such feature folder",
        "python pipelines/extract_features.py\n",
        f"--root {home}/data/3dpw: there is no such folder",
        "python pipelines/make_sample.py",
    ):
        assert part in message
    (home / "features" / "3dpw" / "test").mkdir(parents=True)
    (home / "features" / "3dpw" / "test" / "manifest.json").write_text("{}")
    (home / "data" / "3dpw").mkdir(parents=True)
    RenderSpec(checkpoint=Path("open")).check_places()


def test_a_ray_job_needs_absolute_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="--root pictures, --out drawn: must be absolute"):
        RenderSpec(root=Path("pictures"), out=Path("drawn"), checkpoint=Path("open")).check_places()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_frames": 0}, "--max-frames 0: must be 1 or more"),
        ({"dataset": ""}, "--dataset: is empty"),
        ({"split": ""}, "--split: is empty"),
        ({"body": Path("/nowhere")}, "--body /nowhere: there is no such file or folder"),
        ({"out": Path(__file__)}, "--out .*: cannot be written, it is a file"),
    ],
)
def test_options_of_render_are_checked(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RenderSpec(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"results": Path("/nowhere")}, "/nowhere: there is no such file or folder"),
        ({"video": Path("/nowhere.mp4")}, "--video /nowhere.mp4: there is no such file"),
        ({"body": Path("/nowhere")}, "--body /nowhere: there is no such file or folder"),
        ({"host": ""}, "--host: is empty"),
        ({"port": 70000}, "--port 70000: must be from 1 to 65535"),
    ],
)
def test_options_of_view_are_checked(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ViewSpec(**{"results": ROOT, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["glot.render"], "3 things are missing"),
        (["glot.render", "--body", "nowhere"], "--body nowhere"),
        (["glot.view", "nowhere"], "nowhere: there is no such file or folder"),
    ],
)
def test_mistakes_are_answered_without_heavy_imports(home: Path, arguments: list[str], message: str) -> None:
    module, *options = arguments
    code = f"""
import sys
sys.argv[1:] = {options!r}
from {module} import command
try:
    command()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.startswith("error: ") and message in done.stderr
