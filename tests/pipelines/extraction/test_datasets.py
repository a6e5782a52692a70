"""What extract_features takes from $GLOT_HOME when options are left out, and mistakes that it reports at once."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS
from pipelines.decoders.registry import DATASETS
from pipelines.extraction import job
from pipelines.extraction.datasets import DatasetSpec, chosen_datasets
from pipelines.extraction.spec import ExtractSpec
from tests.fixtures.places import ROOT

HEAVY = {"torch", "cv2", "scipy", "av", "ray", "mlflow", "torchvision"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    return tmp_path


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def chosen(**options: Any) -> dict[str, Path]:
    return {spec.dataset: spec.root for spec in chosen_datasets(ExtractSpec(**options))}


def test_without_options_it_is_every_dataset_in_data(home: Path) -> None:
    for name in ("penn_action", "human36m", "video", "something_else"):
        (home / "data" / name).mkdir(parents=True)
    assert chosen() == {name: home / "data" / name for name in ("human36m", "penn_action", "video")}
    (spec, *_) = chosen_datasets(ExtractSpec())
    assert spec.out == home / "features" and spec.split == "all" and spec.body is spec.weights is None


def test_random_weights_are_a_word_and_no_file(home: Path) -> None:
    (home / "data" / "video").mkdir(parents=True)
    write(home / "body" / "spin_model_checkpoint.pth.tar")
    (asked,) = chosen_datasets(ExtractSpec(weights=Path("random")))
    assert asked.weights == RANDOM_WEIGHTS, "neither a path of this folder nor SPIN's"
    with pytest.raises(InputError, match="--weights randomly: there is no such file"):
        ExtractSpec(weights=Path("randomly"))
    with pytest.raises(InputError, match="--weights random: .* resnet50"):
        ExtractSpec(weights=Path("random"), backbone="blazepose")


def test_the_rendered_sample_is_3dpw_only_where_there_is_no_3dpw(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "data" / "sample").mkdir(parents=True)
    with pytest.raises(InputError, match="no folder of a dataset"):  # not a finished sample
        chosen()
    write(home / "data" / "sample" / "sample.json")
    for options in ({}, {"dataset": "3dpw"}):
        assert chosen(**options) == {"3dpw": home / "data" / "sample"}
        assert "rendered sample is in 3DPW's layout" in capsys.readouterr().out
    (home / "data" / "3dpw").mkdir()
    assert chosen() == chosen(dataset="3dpw") == {"3dpw": home / "data" / "3dpw"}
    assert capsys.readouterr().out == ""


def test_a_split_without_a_dataset_takes_the_datasets_that_have_it(home: Path) -> None:
    for name in ("posetrack", "insta_variety"):
        (home / "data" / name).mkdir(parents=True)
    assert chosen(split="validation").keys() == {"posetrack"} and len(chosen(split="train")) == 2
    with pytest.raises(InputError, match="--split test_front: .*holds insta_variety, posetrack, which have no"):
        chosen(split="test_front")


def test_body_and_weights_come_from_body_and_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "data" / "human36m").mkdir(parents=True)
    write(home / "data" / "sample" / "sample.json")
    smpl, spin = write(home / "body" / "SMPL_NEUTRAL.pkl"), write(home / "body" / "spin_model_checkpoint.pth.tar")

    def found(**options: Any) -> tuple[Path | None, Path | None, str]:
        (spec,) = chosen_datasets(ExtractSpec(**options))
        return spec.body, spec.weights, capsys.readouterr().out

    body, weights, printed = found(dataset="human36m")
    assert (body, weights) == (smpl.parent, spin) and printed.count("\n") == 1
    assert f"the body {smpl.parent}" in printed and f"the weights {spin}" in printed
    body, weights, printed = found(dataset="human36m", backbone="blazepose")
    assert (body, weights) == (smpl.parent, None) and "the weights" not in printed
    own = write(home / "own.safetensors")
    assert found(dataset="human36m", weights=own, body=own) == (own, own, "")
    body, weights, _ = found(dataset="3dpw")  # the sample's people have the open body
    assert body is weights is None
    smpl.unlink()
    assert found(dataset="human36m")[0] is None


def test_what_is_missing_is_one_message_with_the_command(home: Path) -> None:
    for options, what, command in (
        ({}, "data: no folder of a dataset in it", "python pipelines/make_sample.py"),
        ({"dataset": "3dpw"}, "data/3dpw or .*data/sample, and no --root", "python pipelines/make_sample.py"),
        ({"dataset": "posetrack"}, "data/posetrack, and no --root", "ln -s /path/to/posetrack .*data/posetrack"),
    ):
        with pytest.raises(InputError, match=rf"{what}[^\n]*\n    {command}$"):
            chosen(**options)


def test_in_a_ray_job_relative_folders_are_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("GLOT_HOME", raising=False)
    with pytest.raises(InputError, match="(?s)--root data, --out features: must be absolute in a Ray job.*GLOT_HOME"):
        ExtractSpec()
    with pytest.raises(InputError, match="^--out features, --tracks boxes: must be absolute"):
        ExtractSpec(dataset="video", root=tmp_path, tracks=Path("boxes"))
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    ExtractSpec()


def test_the_spec_of_a_dataset_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("data/video/a.mp4"))
    write(Path("boxes.json"))
    options: dict[str, Any] = {"root": Path("data/video"), "out": Path("out"), "tracks": Path("boxes.json")}
    (spec,) = chosen_datasets(ExtractSpec(dataset="video", **options))
    assert (spec.root, spec.out, spec.tracks) == tuple(tmp_path / path for path in options.values())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--dataset kinetics", "--dataset kinetics: not known; there is 3dpw, "),
        ("--dataset posetrack --split test", "--split test: posetrack has train, validation; or give all"),
        ("--split val", "--split val: the datasets have train, validation, test"),
        ("--root .", "--root .: give --dataset, too"),
        ("--dataset 3dpw --tracks boxes.json", "--tracks boxes.json: is only for --dataset video"),
        ("--dataset 3dpw --root gone", "--root gone: there is no such folder"),
        ("--dataset 3dpw --root README.md", "--root README.md: is a file"),
        ("--dataset 3dpw --weights gone.pth", "--weights gone.pth: there is no such file"),
        ("--dataset 3dpw --backbone vit", "--backbone vit: not known"),
        ("--dataset 3dpw --backbone blazepose --precision int8", "--precision int8: is for resnet50"),
        ("--dataset 3dpw --preprocessing vibe", "--preprocessing vibe: there is corrected and reference"),
        ("--dataset 3dpw --occluders-per frame", "nothing to paste without --occluders"),
        ("--dataset 3dpw --occluders docs", "--occluders: name one --split"),
        ("--dataset 3dpw --seed -1", "--seed -1: give 0 or more"),
        ("", "no folder of a dataset in it"),
    ],
)
def test_mistakes_are_reported_without_heavy_imports(line: str, reason: str, tmp_path: Path) -> None:
    code = (
        "import sys; from glot import cli; from pipelines.extract_features import main\n"
        f"try: cli.run(main)\nfinally: print(sorted({HEAVY} & sys.modules.keys()))"
    )
    environment = {**os.environ, "GLOT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *line.split()]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout.strip() == "[]", ended.stdout + ended.stderr
    assert ended.stderr.startswith("error: ") and re.search(re.escape(reason), ended.stderr)


def test_an_error_in_one_dataset_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: dict[str, Any] = {"3dpw": 1, "human36m": InputError("broken"), "posetrack": 0, "video": KeyError("ours")}
    begun = []

    def extract(spec: DatasetSpec) -> int:
        begun.append(spec.dataset)
        outcome = outcomes[spec.dataset]
        if isinstance(outcome, Exception):
            raise outcome
        return int(outcome)

    monkeypatch.setattr(job, "extract_dataset", extract)
    specs = {name: DatasetSpec(dataset=name, root=tmp_path) for name in DATASETS}
    assert job.extract_all([specs[name] for name in outcomes]) == 2 and begun == list(outcomes)
    printed = capsys.readouterr().err
    assert "error: human36m: broken" in printed and "KeyError: 'ours'" in printed
    assert job.extract_all([specs["3dpw"], specs["posetrack"]]) == 1
    with pytest.raises(InputError, match="broken"):
        job.extract_all([specs["human36m"]])
