"""``glot.info`` as a real process: all of it at once, nothing heavy imported, nothing secret printed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glot import gpus, info
from glot.features.copy_cache import INDEX
from glot.features.store import FeatureStore
from tests.fixtures.features import write_feature_set
from tests.fixtures.places import ROOT
from tests.glot.test_cli import HEAVY

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "hush-aws",
    "MLFLOW_TRACKING_URI": "https://me:hush-mlflow@tracking",
    "GLOT_WEIGHTS_URL": "https://me:hush-weights@host/assets",
    "RAY_ADDRESS": "ray://hush-ray:1",
}


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A home with a dataset, a run, a finished and an unfinished feature set, and a cache with two copies."""
    for name in ("data/sample", "runs/first", "features/h36m/train/.extraction"):
        (tmp_path / name).mkdir(parents=True)
    for split in ("test", "train"):
        write_feature_set(tmp_path / "features" / "3dpw" / split, tracks=[20], feature_size=8, split=split)
        copy = FeatureStore.open(tmp_path / "features" / "3dpw" / split, cache=tmp_path / "cache").copy
        os.utime(copy / INDEX, (1, 1))
    return tmp_path


def run(places: Path, *options: str) -> str:
    environment = {**os.environ, **SECRETS, "GLOT_HOME": str(places), "GLOT_CACHE": str(places / "cache")}
    command = [sys.executable, "-X", "importtime", "-m", "glot.info", *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    lines = ended.stderr.splitlines()
    packages = {line.rpartition("|")[2].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    assert ended.returncode == 0, ended.stderr
    assert "typer" in packages and not packages & HEAVY
    assert "hush" not in ended.stdout
    return ended.stdout


@pytest.fixture
def user(places: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the copy of the training set open."""
    code = "import sys, time; from pathlib import Path; from glot.features.store import FeatureStore\n"
    code += "store = FeatureStore.open(Path(sys.argv[1]), cache=Path(sys.argv[2])); print(flush=True); time.sleep(600)"
    words = [sys.executable, "-c", code, str(places / "features/3dpw/train"), str(places / "cache")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == "\n"
        yield process
        process.kill()


def test_what_is_where_and_what_may_be_removed(places: Path, user: "subprocess.Popen[str]") -> None:
    found = json.loads(run(places, "--json"))
    assert {"glot", "python", "torch", "ray", "mlflow"} <= found["software"].keys()
    assert found["software"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found["machine"]["cores"] >= 1
    home = found["home"]
    assert (home["folder"], home["is_set"], home["body"]) == (str(places), True, [])
    assert (home["data"], home["runs"]) == (["sample"], ["first"])
    assert home["features"] == ["3dpw/test", "3dpw/train", "h36m/train (unfinished)"]
    copies = found["cache"]["copies"]
    assert [(copy["set"], copy["in_use"]) for copy in copies] == [("3dpw/train", True), ("3dpw/test", False)]
    assert copies[1]["used"] == 1 and found["cache"]["free_bytes"] > 0 and found["pruned_bytes"] is None

    screen = run(places)
    assert len(screen.splitlines()) <= 24
    for words in ("3dpw/train", "in use", "days ago", "h36m/train (unfinished)", "--prune", "the open body"):
        assert words in screen

    assert json.loads(run(places, "--prune", "--json"))["pruned_bytes"] == copies[1]["bytes"]
    user.kill()
    user.wait()
    assert "removed 0.0 MB" in run(places, "--prune")
    assert list((places / "cache").iterdir()) == []


def test_an_empty_machine_is_told_what_to_do_first(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")  # a file in its place
    screen = run(tmp_path)
    for command in ("pipelines/make_sample.py", "pipelines/extract_features.py", "python -m glot.train_ray"):
        assert command in screen
    assert "--prune" not in screen
    assert (tmp_path / "cache").read_text() == "" and len(list(tmp_path.iterdir())) == 1  # it only looks


def test_a_folder_that_cannot_be_read_hides_nothing_else(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOT_HOME", str(places))
    monkeypatch.setenv("GLOT_CACHE", str(places / "cache"))
    monkeypatch.setenv("GLOT_FEATURE_CACHE_BYTES", "7000000000")
    iterdir = Path.iterdir

    def refused(folder: Path) -> Iterator[Path]:
        if folder.name in ("runs", "sources"):
            raise PermissionError(13, "Permission denied", str(folder))
        return iterdir(folder)

    (places / "cache" / "sources").mkdir()
    monkeypatch.setattr(Path, "iterdir", refused)
    monkeypatch.setattr(info, "available_cores", lambda: 3)
    info.main()
    screen = capsys.readouterr().out
    assert "runs      cannot be read: Permission denied" in screen and "videos        cannot be read" in screen
    assert "3dpw/train" in screen and "data      sample" in screen
    assert "at most 7.0 GB" in screen
    assert f"3 CPU cores (the machine has {os.cpu_count()})" in screen
    with pytest.raises(info.NotNowError, match="sources cannot be removed"):
        info.main(prune=True)


def test_gpus_are_those_that_the_process_may_use() -> None:
    answer = "0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81559\n1, GPU-bbbb-2, NVIDIA A100, [N/A]\nno devices\n"
    first, second = gpus.visible(answer, None)
    assert first == ("NVIDIA H100 80GB HBM3", 81559 << 20) and second == ("NVIDIA A100", 0)
    assert gpus.visible(answer, "1") == gpus.visible(answer, "GPU-bb") == [second]
    assert gpus.visible(answer, "0, 1") == gpus.visible(answer, "MIG-cccc") == [first, second]
    assert gpus.visible(answer, "") == gpus.visible(answer, "-1") == []
